//! Versions of the protocol.

/// A version of the protocol: of the body, and of the headers that go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ProtocolVersion {
    /// Without owner ids. Read, and written to those who speak nothing newer.
    V1,
    /// With owner ids, and with room for what is to come.
    #[default]
    V2,
}

impl ProtocolVersion {
    /// All that this program speaks, the oldest first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The oldest that this program speaks: in it is answered what it cannot read.
    pub const OLDEST: Self = Self::V1;

    /// As the body has it.
    pub const fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The one before, if this program speaks it.
    pub const fn older(self) -> Option<Self> {
        match self {
            Self::V1 => None,
            Self::V2 => Some(Self::V1),
        }
    }
}
