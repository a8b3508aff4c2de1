//! The `aarch64-virt` board: memory map and devices of QEMU's `virt` machine (`hw/arm/virt.c`), so that stock firmware
//! and kernels run.
//!
//! With firmware (EDK2, U-Boot) flash 0 is memory that holds it, because code is fetched from memory only; flash 1,
//! where EDK2 keeps its variables, is a flash. The device tree is then at the start of RAM, and a kernel is offered to
//! the firmware through fw_cfg. PSCI is the machine's own in any case: there is no EL3.

use super::{
    console,
    files::BootFiles,
    gic::{self, Gic},
};
use crate::{
    Console, MachineError, Spec, Transport, engine,
    fdt::{self, Chosen, FdtBuilder, FdtError},
    firmware::psci::{self, Psci},
    lifecycle::{Event, Host, Parts},
    loader::{
        AARCH64, Firmware, Kernel, Occupied, Span, check_overlaps, load_initrd, place_fdt, place_initrd,
    },
    peripherals::{self, Slots},
};
use isomer_aarch64::{Aarch64, Conduit, Features, interrupts::ppi};
use isomer_core::{
    Bus, Clock, Device, DynDevice, Gpa, GuestMemory, Placement, Timers, VcpuSignal, bus::SharedDevice,
};
use isomer_devices::{
    backend::char::{CharInput, Discard},
    fw_cfg::{self, FwCfg},
    gic::specifier::{self, LEVEL},
    pci::{ECAM_BYTES, MsiSink, PciFunction, PciHost, PciHostConfig, PciWindow, Space},
    pflash::Pflash,
    pl011::Pl011,
    pl031::Pl031,
    pl061::{Button, Pl061},
    virtio::{
        VirtioDevice,
        mmio::{EmptySlot, VirtioMmio},
        pci::VirtioPci,
    },
};
use isomer_engine::{Engines, Group, SoftVcpu, Vcpu, VcpuConfig};
use std::sync::{Arc, Mutex, PoisonError, mpsc::Sender};

/// One row of the memory map.
struct Window {
    base: u64,
    len: u64,
}

const fn window(base: u64, len: u64) -> Window {
    Window { base, len }
}

// The memory map (QEMU `base_memmap` and `extended_memmap`); the interrupt controller's is in its own file.
const FLASH: Window = window(0, 0x400_0000);
const UART: Window = window(0x900_0000, 0x1000);
const RTC: Window = window(0x901_0000, 0x1000);
const FW_CFG: Window = window(0x902_0000, fw_cfg::WINDOW_LEN);
const GPIO: Window = window(0x903_0000, 0x1000);
const VIRTIO: Window = window(0xa00_0000, 0x200);
const PCI_MMIO32: Window = window(0x1000_0000, 0x2eff_0000);
const PCI_PIO: Window = window(0x3eff_0000, 0x1_0000);
const ECAM: Window = window(0x40_1000_0000, ECAM_BYTES);
const PCI_MMIO64: Window = window(0x80_0000_0000, 0x80_0000_0000);
/// Where RAM starts.
const DRAM: u64 = 0x4000_0000;
/// The most RAM: the high ECAM comes next.
const MEMORY_MAX: u64 = ECAM.base - DRAM;

// SPIs (QEMU `a15irqmap`).
const UART_IRQ: u32 = 1;
const RTC_IRQ: u32 = 2;
const PCI_IRQS: [u32; 4] = [3, 4, 5, 6];
const GPIO_IRQ: u32 = 7;
const VIRTIO_IRQ: u32 = 16;
const VIRTIO_SLOTS: u32 = 32;

/// The GPIO line of the power button.
const POWER_LINE: u32 = 3;
/// The secure physical timer's INTID: there is no secure state, but the device tree names it first.
const SECURE_TIMER: u32 = 29;
/// Affinity fields of `MPIDR_EL1`.
const AFFINITY_MASK: u64 = 0xff_00ff_ffff;
/// The kernel's place behind the first 2 MiB, where QEMU has its boot code.
const KERNEL_OFFSET: u64 = 2 << 20;
/// Room for translated blocks of one vCPU and their code, in bytes.
const CODE_LIMIT_BYTES: usize = 20 << 20;

/// A board being wired.
struct Wiring {
    bus: Arc<Bus>,
    memory: GuestMemory,
    gic: Gic,
    pci: PciHost,
    transport: Transport,
    mmio_slot: u32,
    /// Devices with their places, in the order of the device tree.
    placed: Vec<(String, SharedDevice, Placement)>,
}

impl Wiring {
    /// Puts a device on the bus; its interrupt is SPI `irq`.
    fn place(
        &mut self,
        name: &str,
        device: SharedDevice,
        windows: &[&Window],
        irq: Option<u32>,
    ) -> Result<(), MachineError> {
        let regions: Vec<_> = windows.iter().map(|w| (w.base, w.len)).collect();
        let irqs = irq.map_or_else(Vec::new, |irq| specifier::spi(irq, LEVEL).to_vec());
        map(&self.bus, &device, &regions)?;
        self.placed.push((name.to_owned(), device, Placement { regions, irqs }));
        Ok(())
    }

    /// The next virtio-mmio slot. QEMU calls its interrupt an edge; it is a level, and a level cannot be missed.
    fn place_slot(&mut self, device: SharedDevice) -> Result<(), MachineError> {
        let slot = self.mmio_slot;
        self.mmio_slot += 1;
        let at = window(VIRTIO.base + u64::from(slot) * VIRTIO.len, VIRTIO.len);
        self.place(&format!("virtio{slot}"), device, &[&at], Some(VIRTIO_IRQ + slot))
    }
}

impl Slots for Wiring {
    fn virtio<V: VirtioDevice>(&mut self, device: V) -> Result<(), MachineError> {
        match self.transport {
            Transport::Pci => {
                let function = VirtioPci::new(device, self.memory.clone(), Some(self.gic.msi_sink()));
                self.pci.add(None, Arc::new(Mutex::new(function)))?;
                Ok(())
            }
            Transport::Mmio if self.mmio_slot < VIRTIO_SLOTS => {
                let irq = self.gic.spi(VIRTIO_IRQ + self.mmio_slot);
                let device = VirtioMmio::new(device, self.memory.clone(), irq);
                self.place_slot(shared(device))
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
        Some(self.gic.msi_sink())
    }
}

/// Puts a device's register windows on the bus.
fn map(bus: &Bus, device: &SharedDevice, regions: &[(u64, u64)]) -> Result<(), MachineError> {
    for (region, &(base, len)) in regions.iter().enumerate() {
        bus.map(Gpa(base), len, region, device.clone())?;
    }
    Ok(())
}

fn shared<D: Device + 'static>(device: D) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

fn wrong<E: std::fmt::Display>(error: E) -> MachineError {
    MachineError::Wiring(error.to_string())
}

/// Makes the board.
pub fn build(spec: &Spec, mut host: Host, events: Sender<Event>) -> Result<Parts, MachineError> {
    check(spec)?;
    let files = BootFiles::read(spec)?;
    let mut layout = vec![(Gpa(DRAM), spec.memory_bytes)];
    layout.extend(files.firmware.as_ref().map(|_| (Gpa(FLASH.base), FLASH.len)));
    let memory = GuestMemory::new(&layout)?;
    let clock = Arc::new(Clock::host());
    let timers = Arc::new(Timers::new(clock.clone()));
    let bus = Arc::new(Bus::default());
    let group = Group::<Aarch64>::new(spec.cpus);
    let cpus: Vec<Arc<VcpuSignal>> = group.peers().iter().map(|peer| peer.signal().clone()).collect();

    let gic = Gic::new(&spec.board, &cpus, &memory);
    let guest = Arc::new(cpu_model(spec)?.with_cpu_interface(gic.cpu_port()));
    for part in &gic.parts {
        map(&bus, &part.device, &part.at.regions)?;
    }
    let pci = pci_host(&bus, &gic);
    let mut wiring = Wiring {
        bus: bus.clone(),
        memory: memory.clone(),
        gic,
        pci,
        transport: spec.transport,
        mmio_slot: 0,
        placed: Vec::new(),
    };
    place_flash(&mut wiring, files.firmware.is_some())?;
    let rtc = Pl031::new(wiring.gic.spi(RTC_IRQ), &timers);
    wiring.place("rtc", shared(rtc), &[&RTC], Some(RTC_IRQ))?;
    let gpio = Pl061::new(wiring.gic.spi(GPIO_IRQ));
    let button = Button::new(gpio.line(POWER_LINE), &timers);
    wiring.place("gpio", shared(gpio), &[&GPIO], Some(GPIO_IRQ))?;
    let ports = std::mem::take(&mut host.ports);
    let (input, resize) = consoles(spec, host, &events, &mut wiring)?;
    let ports = peripherals::attach(spec, ports, &mut wiring)?;
    while wiring.mmio_slot < VIRTIO_SLOTS {
        wiring.place_slot(shared(EmptySlot))?;
    }
    let fw_cfg = fw_cfg(spec, &files, &memory)?;
    wiring.place("fw_cfg", shared(fw_cfg), &[&FW_CFG], None)?;

    let start = load(spec, &guest, &wiring, &files)?;
    let psci = Psci::new(memory.clone(), Box::new(move |event| drop(events.send(Event::Power(event)))));
    let (engines, engine) = engine::choose(spec, &guest, &group)?;
    let vcpus = vcpus(spec, &guest, &wiring, &engines, &clock, &psci, start);
    let pci = shared(wiring.pci);
    bus.map(Gpa(ECAM.base), ECAM.len, 0, pci.clone())?;
    let gic = wiring.gic.parts.into_iter().map(|part| (part.label.to_owned(), part.device));
    let mut devices: Vec<_> = gic.collect();
    devices.extend(wiring.placed.into_iter().map(|(name, device, _)| (name, device)));
    devices.push(("pci".to_owned(), pci));
    Ok(Parts {
        vcpus,
        control: group,
        engine,
        devices,
        input,
        resize,
        ports,
        runs_command: spec.command.is_some(),
        power_button: Some(Box::new(move || button.press())),
        timers,
        bus,
    })
}

fn check(spec: &Spec) -> Result<(), MachineError> {
    if spec.memory_bytes > MEMORY_MAX {
        return Err(MachineError::Memory {
            asked_mib: spec.memory_bytes >> 20,
            why: "but this board has room for 255 GiB".into(),
            fix: "use --memory 255G or less".into(),
        });
    }
    Ok(())
}

fn cpu_model(spec: &Spec) -> Result<Aarch64, MachineError> {
    let name = spec.cpu_model.as_deref().unwrap_or("max");
    let model = Aarch64::by_name(name).ok_or_else(|| MachineError::CpuModel {
        name: name.to_owned(),
        arch: spec.arch.name(),
        models: Aarch64::MODELS.join(", "),
    })?;
    Ok(model.with_el2(spec.board.el2))
}

fn pci_host(bus: &Arc<Bus>, gic: &Gic) -> PciHost {
    let window = |space, bus_base, window: &Window| PciWindow {
        space,
        bus_base,
        cpu_base: Gpa(window.base),
        len: window.len,
    };
    // Two zeros for the controller's unit address.
    let specifier = |irq| [&[0, 0], &specifier::spi(irq, LEVEL)[..]].concat();
    PciHost::new(
        bus,
        PciHostConfig {
            windows: vec![
                window(Space::Io, 0, &PCI_PIO),
                window(Space::Memory, PCI_MMIO32.base, &PCI_MMIO32),
                window(Space::Memory, PCI_MMIO64.base, &PCI_MMIO64),
            ],
            wires: PCI_IRQS.map(|irq| gic.spi(irq)),
            specifiers: PCI_IRQS.map(specifier),
            controller: gic::LABEL.to_owned(),
            msi_controller: Some(gic::MSI_LABEL.to_owned()),
        },
    )
}

/// Two flashes, or one behind the firmware.
fn place_flash(wiring: &mut Wiring, has_firmware: bool) -> Result<(), MachineError> {
    for bank in u64::from(has_firmware)..2 {
        let at = window(FLASH.base + bank * FLASH.len, FLASH.len);
        let flash = Pflash::with_image(FLASH.len as usize, &[], false).map_err(wrong)?;
        wiring.place(&format!("flash{bank}"), shared(flash), &[&at], None)?;
    }
    Ok(())
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
    let irq = wiring.gic.spi(UART_IRQ);
    match spec.console() {
        Console::Serial => {
            let waker = host.waker.clone();
            let uart = Pl011::new(irq, host.console, Box::new(move || waker.wake()));
            let uart = Arc::new(Mutex::new(uart));
            wiring.place("serial", uart.clone(), &[&UART], Some(UART_IRQ))?;
            let receive =
                move |bytes: &[u8]| uart.lock().unwrap_or_else(PoisonError::into_inner).receive(bytes);
            Ok((Arc::new(receive), None))
        }
        Console::Virtio => {
            let uart = Pl011::new(irq, Box::new(Discard), Box::new(|| ()));
            wiring.place("serial", shared(uart), &[&UART], Some(UART_IRQ))?;
            let terminal = console::virtio(spec, host, events);
            wiring.virtio(terminal.device)?;
            let handle = terminal.handle;
            Ok((terminal.input, Some(Box::new(move |columns, rows| handle.resize(columns, rows)))))
        }
    }
}

/// What firmware asks for: the number of CPUs, and the kernel it is to start.
fn fw_cfg(spec: &Spec, files: &BootFiles, memory: &GuestMemory) -> Result<FwCfg, MachineError> {
    use fw_cfg::key;
    let mut fw_cfg = FwCfg::new(memory.clone());
    let mut add = |item: u16, bytes: &[u8]| fw_cfg.add_item(item, bytes).map_err(wrong);
    for item in [key::NB_CPUS, key::MAX_CPUS] {
        add(item, &(spec.cpus as u16).to_le_bytes())?;
    }
    let Some(kernel) = files.kernel.as_ref().filter(|_| files.firmware.is_some()) else { return Ok(fw_cfg) };
    let append = spec.append.clone().unwrap_or_else(|| files.append.to_owned());
    let append = [append.as_bytes(), &[0]].concat();
    let initrd = files.initrd.as_deref().unwrap_or(&[]);
    for (size, data, bytes) in [
        (key::KERNEL_SIZE, key::KERNEL_DATA, &kernel[..]),
        (key::INITRD_SIZE, key::INITRD_DATA, initrd),
        (key::CMDLINE_SIZE, key::CMDLINE_DATA, &append),
    ] {
        let len = u32::try_from(bytes.len()).map_err(wrong)?;
        add(size, &len.to_le_bytes())?;
        add(data, bytes)?;
    }
    Ok(fw_cfg)
}

/// Where the first CPU starts, and with what in x0.
struct Start {
    entry: Gpa,
    x0: u64,
}

/// Loads what boots and writes the device tree.
fn load(spec: &Spec, guest: &Aarch64, wiring: &Wiring, files: &BootFiles) -> Result<Start, MachineError> {
    let memory = &wiring.memory;
    let append = spec.append.clone().unwrap_or_else(|| files.append.to_owned());
    let tree = |initrd| device_tree(spec, guest, wiring, &append, initrd).map_err(wrong);
    if let Some(firmware) = &files.firmware {
        let loaded = Firmware::load(&AARCH64, firmware, memory, Gpa(FLASH.base))?;
        memory.write(Gpa(DRAM), &tree(None)?)?;
        return Ok(Start { entry: loaded.entry, x0: 0 });
    }
    let ram = Span { start: Gpa(DRAM), end: Gpa(DRAM + spec.memory_bytes) };
    let mut taken = Vec::new();
    let kernel = match &files.kernel {
        Some(bytes) => Some(Kernel::load(&AARCH64, bytes, memory, Gpa(DRAM + KERNEL_OFFSET), false)?),
        None => None,
    };
    taken.extend(kernel.map(|loaded| Occupied { name: "kernel", span: loaded.span }));
    let initrd = match &files.initrd {
        Some(bytes) => {
            let start = kernel.map_or(Gpa(DRAM + KERNEL_OFFSET), |loaded| loaded.span.start);
            let at = place_initrd(ram, &taken, start, bytes.len() as u64)?;
            Some(load_initrd(bytes, memory, at)?)
        }
        None => None,
    };
    taken.extend(initrd.map(|span| Occupied { name: "initrd", span }));
    check_overlaps(&taken)?;
    let blob = tree(initrd)?;
    let fdt = place_fdt(ram, &taken, blob.len() as u64)?;
    memory.write(fdt, &blob)?;
    Ok(Start { entry: kernel.map_or(Gpa(DRAM), |loaded| loaded.entry), x0: fdt.0 })
}

/// Makes the CPUs, of which the first is on.
fn vcpus(
    spec: &Spec,
    guest: &Arc<Aarch64>,
    wiring: &Wiring,
    engines: &Engines<Aarch64>,
    clock: &Arc<Clock>,
    psci: &Psci,
    start: Start,
) -> Vec<Box<dyn Vcpu>> {
    let (engine, jit) = engines.current();
    let make = |index: usize| {
        let vcpu = SoftVcpu::new(VcpuConfig {
            guest: guest.clone(),
            cpu: psci::boot_state(guest, index as u32, start.entry, start.x0),
            index,
            group: engines.group().clone(),
            memory: wiring.memory.clone(),
            mmio: wiring.bus.clone(),
            clock: clock.clone(),
            firmware: Some(Box::new(psci.clone())),
            trace: spec.trace,
            engine,
            jit: jit.clone(),
            code_limit_bytes: CODE_LIMIT_BYTES,
        });
        if index == 0 {
            vcpu.power_on();
        }
        Box::new(vcpu) as Box<dyn Vcpu>
    };
    (0..spec.cpus).map(make).collect()
}

/// Describes the board to the kernel.
fn device_tree(
    spec: &Spec,
    guest: &Aarch64,
    wiring: &Wiring,
    append: &str,
    initrd: Option<Span>,
) -> Result<Vec<u8>, FdtError> {
    let mut tree = FdtBuilder::new("linux,dummy-virt", &["linux,dummy-virt"]);
    tree.add_memory(&[Span { start: Gpa(DRAM), end: Gpa(DRAM + spec.memory_bytes) }])?;
    let affinities: Vec<u64> = (0..spec.cpus).map(|cpu| guest.mpidr(cpu as u32) & AFFINITY_MASK).collect();
    let psci = match guest.conduit() {
        Conduit::Hvc => "hvc",
        Conduit::Smc => "smc",
    };
    let cpus = fdt::aarch64::Cpus { compatible: guest.compatible, affinities: &affinities, psci: Some(psci) };
    fdt::aarch64::add_cpus(&mut tree, &cpus)?;
    let timers = [SECURE_TIMER, ppi::PHYSICAL_TIMER, ppi::VIRTUAL_TIMER, ppi::HYP_TIMER];
    let private = |intid| specifier::ppi(intid, LEVEL);
    let pmu = guest.has(Features::PMU).then(|| private(ppi::PMU));
    fdt::aarch64::add_private_devices(&mut tree, gic::LABEL, &timers.map(private), pmu)?;
    fdt::aarch64::add_apb_clock(&mut tree)?;
    fdt::aarch64::add_power_button(&mut tree, "gpio", POWER_LINE)?;

    let mut parent = "/".to_owned();
    for part in &wiring.gic.parts {
        if let Some(path) = add(&mut tree, &parent, part.label, &part.device, &part.at)? {
            parent = path;
        }
    }
    let mut serial = None;
    for (name, device, at) in &wiring.placed {
        let path = add(&mut tree, "/", name, device, at)?;
        serial = serial.or(path.filter(|_| name == "serial"));
    }
    let pci_at = Placement { regions: vec![(ECAM.base, ECAM.len)], irqs: Vec::new() };
    if let Some(node) = DynDevice::fw_node(&wiring.pci, &pci_at) {
        tree.add_device("/", Some("pci"), node, &pci_at, gic::LABEL)?;
    }
    if let Some(serial) = &serial {
        tree.add_aliases(&[("serial0", serial)])?;
    }
    let mut seed = [0; 32];
    // A kernel without a seed gathers its own.
    let seeded = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK).is_ok();
    tree.add_chosen(&Chosen {
        bootargs: append,
        initrd,
        stdout_path: serial.as_deref(),
        rng_seed: if seeded { &seed } else { &[] },
    })?;
    tree.build()
}

/// Adds a device's node, if it has one, and returns its path.
fn add(
    tree: &mut FdtBuilder,
    parent: &str,
    label: &str,
    device: &SharedDevice,
    at: &Placement,
) -> Result<Option<String>, FdtError> {
    let node = device.lock().unwrap_or_else(PoisonError::into_inner).fw_node(at);
    node.map(|node| tree.add_device(parent, Some(label), node, at, gic::LABEL)).transpose()
}
