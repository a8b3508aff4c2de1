//! The `riscv64-virt` board: memory map and devices of QEMU's `virt` machine (`hw/riscv/virt.c`), so that stock
//! firmware and kernels run.

use super::{
    console::{self, SharedOutput},
    files::BootFiles,
};
use crate::{
    Console, MachineError, Spec, Transport, engine,
    fdt::{self, Chosen, FdtBuilder, FdtError},
    firmware::sbi::{self, Sbi},
    lifecycle::{Event, Host, Parts},
    loader::{
        Firmware, Kernel, NextMode, Occupied, RISCV64, Span, check_overlaps, load_initrd, place_fdt,
        place_initrd, reset_vector,
    },
    peripherals::{self, Slots},
};
use isomer_core::{
    Bus, Clock, Device, DynDevice, Gpa, GuestMemory, IrqLine, Placement, Timers, VcpuSignal,
    bus::SharedDevice,
};
use isomer_devices::{
    aclint::Clint,
    backend::char::{CharInput, Discard},
    fw_cfg::{self, FwCfg},
    goldfish_rtc::GoldfishRtc,
    pci::{MsiSink, PciFunction, PciHost, PciHostConfig, PciWindow, Space, host::ECAM_BYTES},
    pflash::Pflash,
    plic::{Context, Plic},
    test_finisher::TestFinisher,
    uart16550::Uart16550,
    virtio::{
        VirtioDevice,
        mmio::{EmptySlot, VirtioMmio},
        pci::VirtioPci,
    },
};
use isomer_engine::{Engines, Group, SoftVcpu, Vcpu, VcpuConfig};
use isomer_riscv64::Riscv64;
use std::sync::{Arc, Mutex, PoisonError, mpsc::Sender};

/// One row of the memory map.
struct Window {
    base: u64,
    len: u64,
}

const fn window(base: u64, len: u64) -> Window {
    Window { base, len }
}

// The memory map (QEMU `virt_memmap`).
const MROM: Window = window(0x1000, 0xf000);
const FINISHER: Window = window(0x10_0000, 0x1000);
const RTC: Window = window(0x10_1000, 0x1000);
const CLINT: Window = window(0x200_0000, 0x1_0000);
const PCI_PIO: Window = window(0x300_0000, 0x1_0000);
const PLIC: Window = window(0xc00_0000, 0x60_0000);
const UART: Window = window(0x1000_0000, 0x100);
const VIRTIO: Window = window(0x1000_1000, 0x1000);
const FW_CFG: Window = window(0x1010_0000, fw_cfg::WINDOW_LEN);
const FLASH: Window = window(0x2000_0000, 0x200_0000);
const ECAM: Window = window(0x3000_0000, ECAM_BYTES);
const PCI_MMIO32: Window = window(0x4000_0000, 0x4000_0000);
const PCI_MMIO64: Window = window(0x4_0000_0000, 0x4_0000_0000);
/// Where RAM starts.
const DRAM: u64 = 0x8000_0000;

// PLIC sources.
const VIRTIO_IRQ: u32 = 1;
const VIRTIO_SLOTS: u32 = 8;
const UART_IRQ: u32 = 10;
const RTC_IRQ: u32 = 11;
const PCI_IRQS: [u32; 4] = [0x20, 0x21, 0x22, 0x23];

/// Room for translated blocks of one vCPU and their code, in bytes.
const CODE_LIMIT_BYTES: usize = 20 << 20;

/// A board being wired.
struct Wiring {
    bus: Arc<Bus>,
    memory: GuestMemory,
    plic: Arc<Mutex<Plic>>,
    pci: PciHost,
    transport: Transport,
    mmio_slot: u32,
    /// Devices with their places, in the order of the device tree.
    placed: Vec<(String, SharedDevice, Placement)>,
}

impl Wiring {
    /// Puts a device on the bus.
    fn place(
        &mut self,
        name: &str,
        device: SharedDevice,
        windows: &[&Window],
        irqs: &[u32],
    ) -> Result<(), MachineError> {
        for (region, window) in windows.iter().enumerate() {
            self.bus.map(Gpa(window.base), window.len, region, device.clone())?;
        }
        let regions = windows.iter().map(|w| (w.base, w.len)).collect();
        self.placed.push((name.to_owned(), device, Placement { regions, irqs: irqs.to_vec() }));
        Ok(())
    }

    fn irq(&self, source: u32) -> IrqLine {
        self.plic.lock().unwrap_or_else(PoisonError::into_inner).input(source)
    }

    fn place_slot(&mut self, device: SharedDevice) -> Result<(), MachineError> {
        let slot = self.mmio_slot;
        self.mmio_slot += 1;
        let at = window(VIRTIO.base + u64::from(slot) * VIRTIO.len, VIRTIO.len);
        self.place(&format!("virtio{slot}"), device, &[&at], &[VIRTIO_IRQ + slot])
    }
}

impl Slots for Wiring {
    fn virtio<V: VirtioDevice>(&mut self, device: V) -> Result<(), MachineError> {
        match self.transport {
            Transport::Pci => {
                let function = VirtioPci::new(device, self.memory.clone(), None);
                self.pci.add(None, Arc::new(Mutex::new(function)))?;
                Ok(())
            }
            Transport::Mmio if self.mmio_slot < VIRTIO_SLOTS => {
                let irq = self.irq(VIRTIO_IRQ + self.mmio_slot);
                let device = VirtioMmio::new(device, self.memory.clone(), irq);
                self.place_slot(Arc::new(Mutex::new(device)))
            }
            Transport::Mmio => Err(MachineError::Spec {
                why: format!(
                    "the board has {VIRTIO_SLOTS} virtio-mmio slots, and more devices were asked for"
                ),
                fix: "use fewer --disk options, or --transport pci".into(),
            }),
        }
    }

    fn pci<F: PciFunction + 'static>(&mut self, function: Arc<Mutex<F>>) -> Result<(), MachineError> {
        self.pci.add(None, function)?;
        Ok(())
    }

    fn memory(&self) -> GuestMemory {
        self.memory.clone()
    }

    fn msi(&self) -> Option<Arc<dyn MsiSink>> {
        None
    }
}

/// Makes the board.
pub fn build(spec: &Spec, mut host: Host, events: Sender<Event>) -> Result<Parts, MachineError> {
    let guest = Arc::new(cpu_model(spec)?);
    let memory = GuestMemory::new(&[(Gpa(MROM.base), MROM.len), (Gpa(DRAM), spec.memory_bytes)])?;
    let clock = Arc::new(Clock::host());
    let timers = Arc::new(Timers::new(clock.clone()));
    let bus = Arc::new(Bus::default());
    let group = Group::<Riscv64>::new(spec.cpus);
    let harts: Vec<Arc<VcpuSignal>> = group.peers().iter().map(|peer| peer.signal().clone()).collect();

    let plic = Arc::new(Mutex::new(Plic::new(Context::m_and_s(&harts))));
    let pci = pci_host(&bus, &plic);
    let mut wiring = Wiring {
        bus: bus.clone(),
        memory: memory.clone(),
        plic: plic.clone(),
        pci,
        transport: spec.transport,
        mmio_slot: 0,
        placed: Vec::new(),
    };
    wiring.place("plic", plic, &[&PLIC], &[])?;
    wiring.place("clint", shared(Clint::new(&harts, &timers)), &[&CLINT], &[])?;
    let power = events.clone();
    let finisher = TestFinisher::new(Box::new(move |event| drop(power.send(Event::Power(event)))));
    wiring.place("finisher", shared(finisher), &[&FINISHER], &[])?;
    let rtc = GoldfishRtc::new(wiring.irq(RTC_IRQ), &timers);
    wiring.place("rtc", shared(rtc), &[&RTC], &[RTC_IRQ])?;
    for bank in 0..2 {
        let at = window(FLASH.base + bank * FLASH.len, FLASH.len);
        let flash = Pflash::with_image(FLASH.len as usize, &[], false)
            .map_err(|error| MachineError::Wiring(error.to_string()))?;
        wiring.place(&format!("flash{bank}"), shared(flash), &[&at], &[])?;
    }
    let runs_command = spec.command.is_some();
    // The firmware's console is the same terminal as the kernel's.
    let output = SharedOutput::new(host.console);
    host.console = Box::new(output.clone());
    let ports = std::mem::take(&mut host.ports);
    let (input, resize) = consoles(spec, host, &events, &mut wiring)?;
    let ports = peripherals::attach(spec, ports, &mut wiring)?;
    while wiring.mmio_slot < VIRTIO_SLOTS {
        wiring.place_slot(shared(EmptySlot))?;
    }
    let mut fw_cfg = FwCfg::new(memory.clone());
    let count = (spec.cpus as u16).to_le_bytes();
    for item in [fw_cfg::key::NB_CPUS, fw_cfg::key::MAX_CPUS] {
        fw_cfg.add_item(item, count).map_err(|error| MachineError::Wiring(error.to_string()))?;
    }
    wiring.place("fw_cfg", shared(fw_cfg), &[&FW_CFG], &[])?;
    let (engines, engine) = engine::choose(spec, &guest, &group)?;
    let vcpus = boot(spec, &guest, &wiring, &engines, &clock, output, &events)?;
    let pci = shared(wiring.pci);
    bus.map(Gpa(ECAM.base), ECAM.len, 0, pci.clone())?;
    let mut devices: Vec<_> = wiring.placed.into_iter().map(|(name, device, _)| (name, device)).collect();
    devices.push(("pci".to_owned(), pci));
    Ok(Parts {
        vcpus,
        control: group,
        engine,
        devices,
        input,
        resize,
        ports,
        runs_command,
        power_button: None,
        timers,
        bus,
    })
}

fn shared<D: Device + 'static>(device: D) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

fn cpu_model(spec: &Spec) -> Result<Riscv64, MachineError> {
    let name = spec.cpu_model.as_deref().unwrap_or("max");
    Riscv64::by_name(name).ok_or_else(|| MachineError::CpuModel {
        name: name.to_owned(),
        arch: spec.arch.name(),
        models: Riscv64::MODELS.join(", "),
    })
}

fn pci_host(bus: &Arc<Bus>, plic: &Arc<Mutex<Plic>>) -> PciHost {
    let pci_window = |space, bus_base, window: &Window| PciWindow {
        space,
        bus_base,
        cpu_base: Gpa(window.base),
        len: window.len,
    };
    let wires = PCI_IRQS.map(|source| plic.lock().unwrap_or_else(PoisonError::into_inner).input(source));
    PciHost::new(
        bus,
        PciHostConfig {
            windows: vec![
                pci_window(Space::Io, 0, &PCI_PIO),
                pci_window(Space::Memory, PCI_MMIO32.base, &PCI_MMIO32),
                pci_window(Space::Memory, PCI_MMIO64.base, &PCI_MMIO64),
            ],
            wires,
            specifiers: PCI_IRQS.map(|source| vec![source]),
            controller: "plic".to_owned(),
            msi_controller: None,
        },
    )
}

type Input = Arc<dyn CharInput>;
type Resize = Option<Box<dyn Fn(u16, u16) + Send + Sync>>;

/// The serial port, and the virtio console where the guest uses one. Exactly one of them is the user's terminal.
fn consoles(
    spec: &Spec,
    host: Host,
    events: &Sender<Event>,
    wiring: &mut Wiring,
) -> Result<(Input, Resize), MachineError> {
    let irq = wiring.irq(UART_IRQ);
    match spec.console() {
        Console::Serial => {
            let waker = host.waker.clone();
            let uart = Uart16550::new(irq, host.console, Box::new(move || waker.wake()));
            let uart = Arc::new(Mutex::new(uart));
            wiring.place("serial", uart.clone(), &[&UART], &[UART_IRQ])?;
            let receive =
                move |bytes: &[u8]| uart.lock().unwrap_or_else(PoisonError::into_inner).receive(bytes);
            Ok((Arc::new(receive), None))
        }
        Console::Virtio => {
            let uart = Uart16550::new(irq, Box::new(Discard), Box::new(|| ()));
            wiring.place("serial", shared(uart), &[&UART], &[UART_IRQ])?;
            let terminal = console::virtio(spec, host, events);
            wiring.virtio(terminal.device)?;
            let handle = terminal.handle;
            Ok((terminal.input, Some(Box::new(move |columns, rows| handle.resize(columns, rows)))))
        }
    }
}

/// Loads what boots, writes the device tree, and makes the harts.
fn boot(
    spec: &Spec,
    guest: &Arc<Riscv64>,
    wiring: &Wiring,
    engines: &Engines<Riscv64>,
    clock: &Arc<Clock>,
    output: SharedOutput,
    events: &Sender<Event>,
) -> Result<Vec<Box<dyn Vcpu>>, MachineError> {
    let files = BootFiles::read(spec)?;
    let memory = &wiring.memory;
    let ram = Span { start: Gpa(DRAM), end: Gpa(DRAM + spec.memory_bytes) };
    let mut taken = Vec::new();
    let firmware = match &files.firmware {
        Some(bytes) => Some(Firmware::load(&RISCV64, bytes, memory, Gpa(DRAM))?),
        None => None,
    };
    let floor =
        firmware.map_or(Gpa(DRAM + KERNEL_OFFSET), |loaded| loaded.span.end.max(Gpa(DRAM + KERNEL_OFFSET)));
    taken.extend(firmware.map(|loaded| Occupied { name: "firmware", span: loaded.span }));
    let kernel = match &files.kernel {
        Some(bytes) => Some(Kernel::load(&RISCV64, bytes, memory, floor, firmware.is_some())?),
        None => None,
    };
    taken.extend(kernel.map(|loaded| Occupied { name: "kernel", span: loaded.span }));
    check_overlaps(&taken)?;
    let initrd = match &files.initrd {
        Some(bytes) => {
            let start = kernel.map_or(Gpa(DRAM + KERNEL_OFFSET), |loaded| loaded.span.start);
            let at = place_initrd(ram, &taken, start, bytes.len() as u64)?;
            Some(load_initrd(bytes, memory, at)?)
        }
        None => None,
    };
    taken.extend(initrd.map(|span| Occupied { name: "initrd", span }));

    let append = spec.append.clone().unwrap_or_else(|| files.append.to_owned());
    let blob =
        device_tree(spec, guest, wiring, &append, initrd).map_err(|e| MachineError::Wiring(e.to_string()))?;
    let fdt = place_fdt(ram, &taken, blob.len() as u64)?;
    memory.write(fdt, &blob)?;

    let own_firmware = firmware.is_none();
    let start = firmware.or(kernel).map_or(Gpa(DRAM), |loaded| loaded.entry);
    let next = kernel.map_or(Gpa(DRAM + KERNEL_OFFSET), |loaded| loaded.entry);
    let rom = reset_vector(start, fdt, next, NextMode::Supervisor, None);
    memory.write(Gpa(MROM.base), &rom)?;

    let power = events.clone();
    let on_power = Box::new(move |event| drop(power.send(Event::Power(event))));
    let sbi = own_firmware.then(|| Sbi::new(memory.clone(), spec.cpus, Box::new(output), on_power));
    let (engine, jit) = engines.current();
    let mut vcpus: Vec<Box<dyn Vcpu>> = Vec::new();
    for index in 0..spec.cpus {
        let cpu = match own_firmware {
            true => sbi::boot_state(guest, index as u64, start, fdt.0),
            false => guest.reset(index as u64, MROM.base),
        };
        let vcpu = SoftVcpu::new(VcpuConfig {
            guest: guest.clone(),
            cpu,
            index,
            group: engines.group().clone(),
            memory: memory.clone(),
            mmio: wiring.bus.clone(),
            clock: clock.clone(),
            firmware: sbi.as_ref().map(|sbi| Box::new(sbi.hart()) as Box<dyn isomer_engine::Firmware<_>>),
            trace: spec.trace,
            engine,
            jit: jit.clone(),
            code_limit_bytes: CODE_LIMIT_BYTES,
        });
        // Firmware of the user's decides for itself which hart boots; ours starts the others when asked.
        if index == 0 || !own_firmware {
            vcpu.power_on();
        }
        vcpus.push(Box::new(vcpu));
    }
    Ok(vcpus)
}

/// The kernel's place behind the first 2 MiB, which belong to firmware.
const KERNEL_OFFSET: u64 = 2 << 20;

/// Describes the board to the kernel.
fn device_tree(
    spec: &Spec,
    guest: &Riscv64,
    wiring: &Wiring,
    append: &str,
    initrd: Option<Span>,
) -> Result<Vec<u8>, FdtError> {
    let mut fdt = FdtBuilder::new("riscv-virtio,isomer", &["riscv-virtio"]);
    fdt.add_memory(&[Span { start: Gpa(DRAM), end: Gpa(DRAM + spec.memory_bytes) }])?;
    fdt::riscv64::add_cpus(&mut fdt, guest, spec.cpus)?;
    let soc = fdt.add_soc()?;
    let mut serial = None;
    for (name, device, at) in &wiring.placed {
        let node = device.lock().unwrap_or_else(PoisonError::into_inner).fw_node(at);
        if let Some(node) = node {
            let path = fdt.add_device(&soc, Some(name), node, at, "plic")?;
            serial = serial.or((name == "serial").then_some(path));
        }
    }
    let pci_at = Placement { regions: vec![(ECAM.base, ECAM.len)], irqs: Vec::new() };
    if let Some(node) = DynDevice::fw_node(&wiring.pci, &pci_at) {
        fdt.add_device(&soc, Some("pci"), node, &pci_at, "plic")?;
    }
    for node in TestFinisher::power_nodes() {
        fdt.add("/", None, node)?;
    }
    let mut seed = [0; 32];
    // A kernel without a seed gathers its own.
    let seeded = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK).is_ok();
    fdt.add_chosen(&Chosen {
        bootargs: append,
        initrd,
        stdout_path: serial.as_deref(),
        rng_seed: if seeded { &seed } else { &[] },
    })?;
    fdt.build()
}
