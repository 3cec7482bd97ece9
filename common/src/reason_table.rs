//! Makes an enum of a table of reasons: variant, code and sentence in one place, so that none can be without the others.

macro_rules! reasons {
    ($($(#[$doc:meta])* $code:literal $name:ident { $($field:ident : $type:ty),* $(,)? } => ($($say:tt)+);)+) => {
        /// Why something is as it is: one variant per cause, with the numbers that decided. Fields carry their
        /// unit in their name (`_s` seconds, `_h` hours, `_percent`) or their type; loads are in cores, scores
        /// and improvements in node-score points (0 to 100).
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "code")]
        #[allow(missing_docs, reason = "the sentence beside each variant tells what its fields mean")]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $code)] $name { $($field: $type),* }),+
        }

        impl Reason {
            /// Every code there is.
            pub const CODES: &[&str] = &[$($code),+];

            /// Stable name of the cause: API, metrics and learning key on it.
            #[must_use]
            pub const fn code(&self) -> &'static str {
                match self { $(Self::$name { .. } => $code),+ }
            }
        }

        impl fmt::Display for Reason {
            /// One sentence, without a full stop.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name { $($field),* } => write!(f, $($say)+)),+ }
            }
        }
    };
}
