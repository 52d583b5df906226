//! What `--help` of each command ends with: calls of it as one makes them.

pub(super) const RUN: &str = "\
Examples:
  edge run --config edge.toml";

pub(super) const CHECK: &str = "\
Examples:
  edge check --config edge.toml";

pub(super) const EXPLAIN: &str = "\
Examples:
  edge explain --config edge.toml https://shop.example/products
  edge explain --config edge.toml -H 'Cookie: session=1' -H 'Accept-Language: de' https://shop.example/cart
  edge explain --config edge.toml --response head.txt https://shop.example/products";

pub(super) const PURGE: &str = "\
Examples:
  edge purge --config edge.toml --url https://shop.example/products/7
  edge purge --config edge.toml --tag product-7 --tag front-page --soft
  edge purge --config edge.toml --prefix https://shop.example/blog/ --dry-run
  edge purge --config edge.toml --host shop.example --soft";

pub(super) const PS: &str = "\
Examples:
  edge ps --config edge.toml";

pub(super) const LOGS: &str = "\
Examples:
  edge logs app --config edge.toml -n 50
  edge logs app --config edge.toml -f";

pub(super) const RESTART: &str = "\
Examples:
  edge restart app --config edge.toml";

pub(super) const RELOAD: &str = "\
Examples:
  edge reload --config edge.toml
  edge reload --config edge.toml --admin 127.0.0.1:9900";
