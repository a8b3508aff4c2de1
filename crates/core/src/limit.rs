//! Limits on what a guest can make the host say: log lines, by place and by second.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Lets `burst` events through each second and counts the rest.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    window: Mutex<Option<(Instant, u32, u64)>>,
}

impl RateLimit {
    /// `burst` events a second.
    pub const fn new(burst: u32) -> Self {
        Self { burst, window: Mutex::new(None) }
    }

    /// May this event be reported? `Some(n)`: yes, and `n` were held back since the last report.
    pub fn allow(&self) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let (start, used, held) = window.get_or_insert((now, 0, 0));
        if now.duration_since(*start) >= Duration::from_secs(1) {
            (*start, *used) = (now, 0);
        }
        if *used >= self.burst {
            *held += 1;
            return None;
        }
        *used += 1;
        Some(std::mem::take(held))
    }
}

/// Warns about something a guest did, at most five times a second a place.
#[macro_export]
macro_rules! guest_warn {
    ($($arg:tt)*) => {{
        static LIMIT: $crate::limit::RateLimit = $crate::limit::RateLimit::new(5);
        if let Some(held_back) = LIMIT.allow() {
            ::tracing::warn!(held_back, $($arg)*);
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_held_back() {
        let limit = RateLimit::new(3);
        let allowed = (0..1000).filter(|_| limit.allow().is_some()).count();
        assert!((3..=6).contains(&allowed), "{allowed}"); // at most one window change while testing
    }
}
