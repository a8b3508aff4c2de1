# FEAT_AES, FEAT_PMULL, FEAT_SHA1, FEAT_SHA256, FEAT_SHA512, FEAT_SHA3.
    .include "test.inc"
    start
    ldr     x20, =data
    ldp     q16, q17, [x20]
    ldp     q18, q19, [x20, #32]
    mov     v0.16b, v16.16b
    aese    v0.16b, v17.16b         // #= v0 0xd5274971aba1c0e125d66639b6444588
    aesmc   v1.16b, v0.16b          // #= v1 0x4c125fcb149e2988b187b12bf5847836
    mov     v2.16b, v16.16b
    aesd    v2.16b, v17.16b         // #= v2 0xa88ba942af2bf7a0d25c1d57d7dccb85
    aesimc  v3.16b, v2.16b          // #= v3 0xb1163b54db333e056cc9305158eece3d
    pmull   v4.1q, v16.1d, v17.1d   // #= v4 0xeef3c0fbae088202ecf1c2f9ac0a8
    pmull2  v5.1q, v16.2d, v17.2d   // #= v5 0x7de4ace80e2cdf205dc48cc82e0cff00
    mov     v6.16b, v16.16b
    sha1c   q6, s17, v18.4s         // #= v6 0x154fab570fd9cbeb8ddf7e5107e4bf1
    mov     v7.16b, v16.16b
    sha1p   q7, s17, v18.4s         // #= v7 0xe408bf8a19ccc64e1228a86979c8be72
    mov     v8.16b, v16.16b
    sha1m   q8, s17, v18.4s         // #= v8 0x1f32d8931f345002f43799bcd8c86340
    sha1h   s9, s16                 // #= v9 0xe26af37b
    mov     v10.16b, v16.16b
    sha1su0 v10.4s, v17.4s, v18.4s  // #= v10 0xe2db1d8a3e7e282cdbc095777a5cf72c
    mov     v11.16b, v16.16b
    sha1su1 v11.4s, v17.4s          // #= v11 0xe76ef67fe3852f4985e3492f0d6bc1a7
    mov     v12.16b, v16.16b
    sha256h q12, q17, v18.4s        // #= v12 0x1f295c76c9440a4373c0cfaa6a1d48d5
    mov     v13.16b, v16.16b
    sha256h2 q13, q17, v18.4s       // #= v13 0x59bf4e2002dca6eca1499418867992ef
    mov     v14.16b, v16.16b
    sha256su0 v14.4s, v17.4s        // #= v14 0x6280a5c376d443a123c5791aa92bbc5d
    mov     v15.16b, v16.16b
    sha256su1 v15.4s, v17.4s, v18.4s // #= v15 0x21405beda53b4f12b94c34e4d09458f5
    mov     v20.16b, v16.16b
    sha512h q20, q17, v18.2d        // #= v20 0x4d3bd8ef226115d8e7138f5255c238ef
    mov     v21.16b, v16.16b
    sha512h2 q21, q17, v18.2d       // #= v21 0x704eeddba677a85f6aeeb0a2773cf15d
    mov     v22.16b, v16.16b
    sha512su0 v22.2d, v17.2d        // #= v22 0x7e7aef81d7c50c176f907deb1d5cb34d
    mov     v23.16b, v16.16b
    sha512su1 v23.2d, v17.2d, v18.2d // #= v23 0x748bac8892f381cd5b44c0a57da881d0
    eor3    v24.16b, v16.16b, v17.16b, v18.16b // #= v24 0x6a539502b6f6a0a42a0202d34752ac44
    rax1    v25.2d, v16.2d, v17.2d  // #= v25 0xf1f1f1f1f1f1f1f11f1f1f1f1f1f1f1f
    xar     v26.2d, v16.2d, v17.2d, #13 // #= v26 0x9f03ca50f965ac3624b871eb42de178d
    bcax    v27.16b, v16.16b, v17.16b, v18.16b // #= v27 0x7a5a9f08b6d6b2a00a234053c3f3acc7
    mov     x20, #0
    done
    .data
    .balign 16
data:
    .dword  0x0123456789abcdef, 0xfedcba9876543210
    .dword  0x0f1e2d3c4b5a6978, 0x8796a5b4c3d2e1f0
    .dword  0x243f6a8885a308d3, 0x13198a2e03707344
    .dword  0xa4093822299f31d0, 0x082efa98ec4e6c89
