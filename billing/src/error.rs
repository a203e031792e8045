//! The one error at the edge: why a request is not served, whose fault that is, and what we may tell.
//!
//! The *reason* is the `code` a client reads and the metric's label; the *detail* is written for the person who made
//! the request and holds nothing secret. What went wrong inside travels as the source and is logged once, where the
//! error becomes an answer. It does not choose a status: that table stands in `api::problem`.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $title:literal;)*) => {
        /// Why a request is not served. The list is closed, so it can be a metric's label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word a client reads as `code`.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The same for people, always alike.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

reasons! {
    /// No token, or one that is not known: never told apart.
    BadToken = "invalid_token", "Who asks is not known";
    /// The token's role may not do this.
    Forbidden = "forbidden", "The token's role may not do this";
    /// No such address.
    UnknownRoute = "unknown_route", "There is no such address";
    /// The address exists, the method does not.
    MethodNotAllowed = "method_not_allowed", "This address does not take this method";
    /// The thing named in the address does not exist.
    NotFound = "not_found", "There is no such thing";
    /// The request cannot be read.
    Malformed = "malformed", "The request cannot be read";
    /// It can be read, and asks for something that cannot be.
    Invalid = "invalid", "What is asked for cannot be";
    /// It would be right, if something else were not as it is.
    Conflict = "conflict", "Something else stands in the way";
    /// The same `Idempotency-Key` with another request.
    KeyReused = "idempotency_key_reused", "This Idempotency-Key was used for another request";
    /// The body is over the limit.
    TooLarge = "too_large", "The body is over the limit";
    /// The request did not arrive, or was not done, in time.
    Timeout = "timeout", "It took too long";
    /// The database does not answer.
    Storage = "storage_unavailable", "The database does not answer";
    /// A bug of ours.
    Internal = "internal_error", "Something went wrong here";
}

impl Reason {
    /// Whether we failed, rather than the caller.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Storage | Self::Internal)
    }
}

/// Why a request is not served.
#[derive(Debug)]
pub struct Error {
    /// The reason.
    pub reason: Reason,
    /// For the person who asked: what is wrong and what to do. Nothing secret.
    pub detail: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with nothing behind it.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), source: None }
    }

    /// What is named does not exist.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Reason::NotFound, format!("there is no {what} \"{id}\""))
    }

    /// What is asked for cannot be.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Invalid, detail)
    }

    /// Something else stands in the way.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Conflict, detail)
    }

    /// A bug of ours: what was being done, and what went wrong.
    pub fn internal(doing: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reason: Reason::Internal, detail: Cow::Borrowed(doing), source: Some(source.into()) }
    }

    /// What lies behind it, outermost first, in one line.
    pub fn causes(&self) -> String {
        let mut causes = Vec::new();
        let mut next: Option<&dyn StdError> = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes.join(": ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Whatever the database says: a row that is there twice is told by those who write it, so this is trouble.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let reason = match &error {
            sqlx::Error::RowNotFound
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_) => Reason::Internal,
            _ => Reason::Storage,
        };
        Self { reason, detail: Cow::Borrowed("try again; the log has the cause"), source: Some(Box::new(error)) }
    }
}

/// What we wrote as JSON and cannot read again, or the other way round.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal("reading what was stored", error)
    }
}
