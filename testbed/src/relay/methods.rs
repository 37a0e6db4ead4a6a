//! The methods in a client's stream of AMQP 0.9.1.

use std::collections::VecDeque;

/// What a client says before its first frame.
const PROTOCOL_HEADER_BYTES: usize = 8;
/// Type, channel and size of a frame.
const FRAME_HEADER_BYTES: usize = 7;
/// What ends a frame.
const FRAME_END_BYTES: usize = 1;
/// Type of the frames that are methods.
const METHOD_FRAME: u8 = 1;
/// Class and method, with which the payload of a method begins.
const METHOD_BYTES: usize = 4;

/// What a client asks of a broker, and waits for an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmqpMethod {
    /// `channel.open`
    ChannelOpen,
    /// `exchange.declare`
    ExchangeDeclare,
    /// `queue.declare`
    QueueDeclare,
    /// `queue.bind`
    QueueBind,
    /// `basic.qos`
    BasicQos,
    /// `basic.consume`
    BasicConsume,
    /// `basic.cancel`
    BasicCancel,
    /// `basic.publish`, answered by a confirm
    BasicPublish,
    /// `confirm.select`
    ConfirmSelect,
}

impl AmqpMethod {
    /// Class and method, as they are on the wire.
    fn code(self) -> [u8; METHOD_BYTES] {
        let (class, method) = match self {
            Self::ChannelOpen => (20, 10),
            Self::ExchangeDeclare => (40, 10),
            Self::QueueDeclare => (50, 10),
            Self::QueueBind => (50, 20),
            Self::BasicQos => (60, 10),
            Self::BasicConsume => (60, 20),
            Self::BasicCancel => (60, 30),
            Self::BasicPublish => (60, 40),
            Self::ConfirmSelect => (85, 10),
        };
        [0, class, 0, method]
    }
}

/// Reads the stream piece by piece. It keeps no more than the beginning of a frame.
#[derive(Debug)]
pub(super) struct Methods {
    /// Bytes to leave out before the next beginning of a frame.
    skipped: usize,
    beginning: VecDeque<u8>,
}

impl Methods {
    pub(super) fn new() -> Self {
        Self { skipped: PROTOCOL_HEADER_BYTES, beginning: VecDeque::new() }
    }

    /// Whether a frame with this method begins in the bytes that come next. Every byte has to be
    /// shown, whether a method is wanted or not.
    pub(super) fn contain(&mut self, bytes: &[u8], wanted: Option<AmqpMethod>) -> bool {
        let mut found = false;
        for byte in bytes {
            if self.skipped > 0 {
                self.skipped -= 1;
                continue;
            }
            self.beginning.push_back(*byte);
            if let Some(code) = self.method() {
                found |= wanted.is_some_and(|wanted| code == wanted.code());
            }
        }
        found
    }

    /// The method of the frame that has begun, once it is there; the rest of the frame is left out.
    /// Other frames give what no method has.
    fn method(&mut self) -> Option<[u8; METHOD_BYTES]> {
        let beginning = self.beginning.make_contiguous();
        let (header, payload) = beginning.split_at_checked(FRAME_HEADER_BYTES)?;
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
        let is_method = header[0] == METHOD_FRAME && size >= METHOD_BYTES;
        let code = match is_method {
            true => *payload.first_chunk()?,
            false => [0; METHOD_BYTES],
        };
        self.skipped = size + FRAME_END_BYTES - payload.len();
        self.beginning.clear();
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's stream: protocol header, a heartbeat, a method without arguments, one with.
    fn stream() -> Vec<u8> {
        let mut stream = b"AMQP\x00\x00\x09\x01".to_vec();
        stream.extend([8, 0, 0, 0, 0, 0, 0, 0xce]);
        stream.extend([1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 20, 0xce]);
        stream.extend([1, 0, 1, 0, 0, 0, 6, 0, 60, 0, 10, 60, 20, 0xce]);
        stream
    }

    #[test]
    fn methods_are_found_however_the_stream_is_cut() {
        let stream = stream();
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            let found = |wanted| {
                let mut methods = Methods::new();
                usize::from(methods.contain(first, Some(wanted)))
                    + usize::from(methods.contain(second, Some(wanted)))
            };
            assert_eq!(found(AmqpMethod::BasicConsume), 1, "cut at {cut}");
            assert_eq!(found(AmqpMethod::BasicQos), 1, "cut at {cut}");
            assert_eq!(found(AmqpMethod::QueueBind), 0, "cut at {cut}");
        }
    }
}
