//! Administration: queues, identification, features, log pages (NVMe 1.4, 5).

use super::{
    BLOCK_BYTES, Controller, MAX_TRANSFER_SHIFT, VERSION,
    prp::{self, PAGE},
    queues::{MAX_IO_QUEUES, Ring, Taken},
    spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Status, admin},
};

/// Event requests that may be held: none is ever answered, for there is nothing to tell.
const EVENT_REQUESTS: u8 = 4;
/// Features that hold a number and no more: arbitration to asynchronous events.
const FEATURES: std::ops::RangeInclusive<u32> = 0x01..=0x0b;
/// Volatile write cache.
pub(super) const FEATURE_WRITE_CACHE: usize = 0x06;
/// Number of queues.
const FEATURE_QUEUES: u32 = 0x07;
/// Features' values after a reset.
pub(super) const FEATURE_DEFAULTS: [u32; 12] = {
    let mut values = [0; 12];
    values[FEATURE_WRITE_CACHE] = 1;
    values[0x04] = 343;
    values
};

/// What came of a command.
pub(super) enum Answer {
    Now(Status, u32),
    /// When there is something to tell.
    Held,
    /// When commands in hand are done; to be tried again.
    Later,
}

impl From<Result<u32, Status>> for Answer {
    fn from(result: Result<u32, Status>) -> Self {
        match result {
            Ok(value) => Self::Now(Status::OK, value),
            Err(status) => Self::Now(status, 0),
        }
    }
}

pub(super) fn run(controller: &Controller, taken: &Taken) -> Answer {
    let command = &taken.command;
    if command.is_strange() {
        return Err(Status::INVALID_FIELD).into();
    }
    match command.opcode() {
        admin::DELETE_SQ => match controller.queues().close_submission(command.word(10) as u16) {
            Ok(true) => Ok(0).into(),
            Ok(false) => Answer::Later,
            Err(status) => Err(status).into(),
        },
        admin::CREATE_SQ => create_submission(controller, command).into(),
        admin::DELETE_CQ => {
            let mut queues = controller.queues();
            let removed = queues.remove_completion(command.word(10) as u16);
            queues.drive(&controller.intx);
            removed.map(|()| 0).into()
        }
        admin::CREATE_CQ => create_completion(controller, command).into(),
        admin::GET_LOG_PAGE => log_page(controller, command).into(),
        admin::IDENTIFY => identify(controller, command).into(),
        // Commands are done before one could reach them.
        admin::ABORT => Ok(1).into(),
        admin::SET_FEATURES => set_feature(controller, command).into(),
        admin::GET_FEATURES => get_feature(controller, command).into(),
        admin::EVENT_REQUEST => {
            let mut settings = controller.settings();
            if settings.event_requests >= EVENT_REQUESTS {
                return Err(Status::TOO_MANY_EVENT_REQUESTS).into();
            }
            settings.event_requests += 1;
            Answer::Held
        }
        _ => Err(Status::INVALID_OPCODE).into(),
    }
}

/// Number and length of the queue to be made.
fn queue(command: &Command) -> Result<(u16, u32), Status> {
    let word = command.word(10);
    let id = word as u16;
    // Physically contiguous: the only kind there is.
    if command.word(11) & 1 == 0 {
        return Err(Status::INVALID_FIELD);
    }
    if id == 0 || id > MAX_IO_QUEUES {
        return Err(Status::INVALID_QUEUE);
    }
    Ok((id, (word >> 16) + 1))
}

fn create_completion(controller: &Controller, command: &Command) -> Result<u32, Status> {
    let (id, entries) = queue(command)?;
    let word = command.word(11);
    let vector = (word >> 16) as u16;
    if vector >= controller.vectors() {
        return Err(Status::INVALID_VECTOR);
    }
    let ring = Ring::new(&controller.memory, command.prp1(), entries, COMPLETION_BYTES)?;
    controller.queues().add_completion(id, ring, vector, word & 2 != 0)?;
    Ok(0)
}

fn create_submission(controller: &Controller, command: &Command) -> Result<u32, Status> {
    let (id, entries) = queue(command)?;
    let ring = Ring::new(&controller.memory, command.prp1(), entries, COMMAND_BYTES)?;
    controller.queues().add_submission(id, ring, (command.word(11) >> 16) as u16)?;
    Ok(0)
}

fn set_feature(controller: &Controller, command: &Command) -> Result<u32, Status> {
    let feature = command.word(10) & 0xff;
    if feature == FEATURE_QUEUES {
        return Ok(granted_queues());
    }
    if !FEATURES.contains(&feature) {
        return Err(Status::INVALID_FIELD);
    }
    controller.settings().features[feature as usize] = command.word(11);
    Ok(0)
}

fn get_feature(controller: &Controller, command: &Command) -> Result<u32, Status> {
    let word = command.word(10);
    match word & 0xff {
        FEATURE_QUEUES => Ok(granted_queues()),
        feature if FEATURES.contains(&feature) => match word >> 8 & 7 {
            0 => Ok(controller.settings().features[feature as usize]),
            1 => Ok(FEATURE_DEFAULTS[feature as usize]),
            _ => Err(Status::INVALID_FIELD),
        },
        _ => Err(Status::INVALID_FIELD),
    }
}

/// All there are, of both kinds, counted from 0.
fn granted_queues() -> u32 {
    let queues = u32::from(MAX_IO_QUEUES) - 1;
    queues << 16 | queues
}

/// Pages a driver reads: errors (none), health, firmware slots.
fn log_page(controller: &Controller, command: &Command) -> Result<u32, Status> {
    let (word, high) = (command.word(10), command.word(11));
    let len = (u64::from(high & 0xffff) << 16 | u64::from(word >> 16)) * 4 + 4;
    let offset = u64::from(command.word(12)) | u64::from(command.word(13)) << 32;
    let mut page = vec![0; 512];
    match word & 0xff {
        1 => {}
        2 => {
            // 300 K, all spare blocks left.
            page[1..3].copy_from_slice(&300_u16.to_le_bytes());
            page[3] = 100;
        }
        3 => {
            page[0] = 1;
            page[8..16].copy_from_slice(b"1       ");
        }
        _ => return Err(Status::INVALID_LOG_PAGE),
    }
    if len > super::MAX_TRANSFER_BYTES || offset > page.len() as u64 {
        return Err(Status::INVALID_FIELD);
    }
    let mut data = page.split_off(offset as usize);
    data.resize(len as usize, 0);
    let segments = prp::segments(&controller.memory, command.prp1(), command.prp2(), len)?;
    prp::write(&controller.memory, &segments, &data)?;
    Ok(0)
}

fn identify(controller: &Controller, command: &Command) -> Result<u32, Status> {
    let mut data = vec![0; PAGE as usize];
    let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
    let namespace = command.namespace();
    match command.word(10) & 0xff {
        // A namespace.
        0 => {
            if !matches!(namespace, 1 | u32::MAX) {
                return Err(Status::INVALID_NAMESPACE);
            }
            let blocks = controller.blocks().to_le_bytes();
            [0, 8, 16].iter().for_each(|at| put(*at, &blocks));
            put(99, &[controller.disk.read_only().into()]);
            // Blocks of 512 bytes without metadata.
            put(130, &[BLOCK_BYTES.trailing_zeros() as u8]);
        }
        1 => identify_controller(controller, &mut put),
        // Namespaces with numbers above the given one.
        2 => {
            if namespace >= u32::MAX - 1 {
                return Err(Status::INVALID_NAMESPACE);
            }
            put(0, &u32::from(namespace == 0).to_le_bytes());
        }
        // What identifies a namespace: a UUID.
        3 => {
            if namespace != 1 {
                return Err(Status::INVALID_NAMESPACE);
            }
            put(0, &[3, 16]);
            put(4, &controller.uuid);
        }
        _ => return Err(Status::INVALID_FIELD),
    }
    let segments = prp::segments(&controller.memory, command.prp1(), command.prp2(), PAGE)?;
    prp::write(&controller.memory, &segments, &data)?;
    Ok(0)
}

fn identify_controller(controller: &Controller, put: &mut impl FnMut(usize, &[u8])) {
    let padded = |text: &str, len: usize| -> Vec<u8> {
        text.bytes().chain(std::iter::repeat(b' ')).take(len).collect()
    };
    put(0, &super::VENDOR.to_le_bytes());
    put(2, &super::VENDOR.to_le_bytes());
    put(4, &padded(&controller.serial, 20));
    put(24, &padded("Isomer NVMe", 40));
    put(64, &padded("1", 8));
    put(72, &[6]); // recommended arbitration burst
    put(77, &[MAX_TRANSFER_SHIFT]);
    put(80, &VERSION.to_le_bytes());
    put(111, &[1]); // an I/O controller
    put(258, &[3, EVENT_REQUESTS - 1, 0b11]); // aborts, event requests, one read-only firmware slot
    put(266, &343_u16.to_le_bytes()); // warning and critical temperatures
    put(268, &373_u16.to_le_bytes());
    put(512, &[0x66, 0x44]); // entry sizes, as powers of two
    put(516, &1_u32.to_le_bytes()); // namespaces
    put(520, &0b1100_u16.to_le_bytes()); // dataset management, write zeroes
    put(525, &[0b111]); // there is a write cache, and flushes of all namespaces
    let name = format!("nqn.2014-08.org.nvmexpress:uuid:{}", uuid_text(&controller.uuid));
    put(768, name.as_bytes());
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
