//! Physical memory protection (volume II, 3.7).
