//! The four calls of `/v1` that a model answers, and all that differs between them.
//!
//! One flow serves them (`ingress::call`); what it must know of each is here: where it goes, which field limits the
//! output, and whether there is any. It knows no bytes: how a stream of each is counted and cut is in `stream`.

/// A call that a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Completions, Self::Embeddings];

    /// Where it is below a `base_url` that ends in `/v1`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }

    /// The model writes something.
    pub fn has_output(self) -> bool {
        self != Self::Embeddings
    }

    /// A stream tells its usage only if it is asked to (`stream_options.include_usage`).
    pub fn asks_for_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// The fewest output tokens a client may ask for. A completion of nothing is how scores of a prompt are had.
    pub fn output_min(self) -> u64 {
        u64::from(self != Self::Completions)
    }
}
