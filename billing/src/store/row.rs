//! A row of a query as a struct: its fields are the columns, by name.
//!
//! A macro of ours, because sqlx's derive brings with it a second build of both drivers for the compiler. Columns that
//! the struct does not have are passed over.

/// Defines a struct that a row becomes.
macro_rules! row {
    ($(#[$attribute:meta])* struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        struct $name { $($(#[$doc])* $field: $type,)* }

        impl<'r> sqlx::FromRow<'r, sqlx::any::AnyRow> for $name {
            fn from_row(row: &'r sqlx::any::AnyRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field))?,)* })
            }
        }
    };
}
