//! The names that the gateway has to do with.

macro_rules! names {
    ($($name:ident = $text:literal,)*) => {
        /// A field's name that the gateway has to do with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Name {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// In lower case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

names! {
    AgentType = "x-agent-type",
    AltSvc = "alt-svc",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentLocation = "content-location",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Expect = "expect",
    Forwarded = "forwarded",
    ForwardedFor = "x-forwarded-for",
    ForwardedHost = "x-forwarded-host",
    ForwardedPrefix = "x-forwarded-prefix",
    ForwardedProto = "x-forwarded-proto",
    Host = "host",
    Http2Settings = "http2-settings",
    IdempotencyKey = "idempotency-key",
    KeepAlive = "keep-alive",
    Location = "location",
    NotBegun = "x-switchyard-not-begun",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthenticationInfo = "proxy-authentication-info",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    RateLimit = "ratelimit",
    RateLimitPolicy = "ratelimit-policy",
    RealIp = "x-real-ip",
    RequestId = "x-request-id",
    SetCookie = "set-cookie",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    Via = "via",
}

/// Slots of the table by which names are found.
const SLOTS: usize = 256;
/// A slot without a name.
const NONE: u8 = u8::MAX;

/// Where each name is found: made by the compiler, which refuses two names in one slot.
const TABLE: [u8; SLOTS] = {
    let mut table = [NONE; SLOTS];
    let mut at = 0;
    while at < Name::ALL.len() {
        let slot = slot(Name::ALL[at].as_str().as_bytes());
        assert!(table[slot] == NONE, "two names share a slot: choose other factors");
        table[slot] = at as u8;
        at += 1;
    }
    table
};

/// From the length, and the bytes in which the names differ most: the first, the middle and the
/// last.
const fn slot(text: &[u8]) -> usize {
    let length = text.len();
    let (first, middle, last) = (text[0], text[length / 2], text[length - 1]);
    let mixed = (length as u32).wrapping_mul(251)
        ^ (first as u32).wrapping_mul(15)
        ^ (middle as u32).wrapping_mul(241)
        ^ (last as u32).wrapping_mul(23);
    (mixed % SLOTS as u32) as usize
}

impl Name {
    /// The one that is written so, in lower case.
    #[must_use]
    pub fn of(text: &[u8]) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let name = *Self::ALL.get(usize::from(TABLE[slot(text)]))?;
        (name.as_str().as_bytes() == text).then_some(name)
    }

    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Some names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(u64);

impl Names {
    /// These.
    #[must_use]
    pub const fn of(names: &[Name]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < names.len() {
            bits |= names[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether this is one of them.
    #[must_use]
    pub const fn contains(self, name: Name) -> bool {
        self.0 & name.bit() != 0
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }
}
