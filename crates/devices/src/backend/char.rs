//! Host ends of character devices (serial ports, consoles): where bytes go, and how they arrive.
//!
//! Output is a [`CharOutput`] the device is given. Input goes the other way round: whoever reads the host's
//! side calls the device's own `receive`, which takes what it has room for; an [`InputWaker`] tells the
//! reader when there is room again.

/// Where a character device's output goes. Called with the device's lock held, often one byte at a time.
pub trait CharOutput: Send {
    /// Takes all of `bytes`; what the host refuses is dropped, never reported to the guest.
    fn write(&mut self, bytes: &[u8]);
    /// Waits until everything written has reached the host, as far as the host lets it.
    fn flush(&mut self) {}
}

/// Output that goes nowhere.
#[derive(Debug, Default)]
pub struct Discard;

impl CharOutput for Discard {
    fn write(&mut self, _bytes: &[u8]) {}
}

impl<T: CharOutput + ?Sized> CharOutput for Box<T> {
    fn write(&mut self, bytes: &[u8]) {
        (**self).write(bytes);
    }
    fn flush(&mut self) {
        (**self).flush();
    }
}

/// Output copied to several places (the terminal and a log).
pub struct Tee(pub Vec<Box<dyn CharOutput>>);

impl CharOutput for Tee {
    fn write(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|output| output.write(bytes));
    }
    fn flush(&mut self) {
        self.0.iter_mut().for_each(|output| output.flush());
    }
}

impl std::fmt::Debug for Tee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tee({})", self.0.len())
    }
}
