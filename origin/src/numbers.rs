//! What whole numbers mean, each kind a type of its own: the number of an order is not taken for a customer's, nor a sum of
//! money for a count. In the database, in JSON and in addresses they are numbers as any.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! numbers {
    ($($(#[$about:meta])* $name:ident;)+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type, ToSchema)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(i64);

        impl From<i64> for $name {
            fn from(number: i64) -> Self {
                Self(number)
            }
        }

        impl From<$name> for i64 {
            fn from($name(number): $name) -> Self {
                number
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )+};
}

numbers! {
    /// Names an account, a customer's or an administrator's.
    UserId;
    /// Names a product, offered or not.
    ProductId;
    /// Names a category.
    CategoryId;
    /// Names an order.
    OrderId;
    /// A sum of money in the smallest unit of its currency; never negative.
    Cents;
}
