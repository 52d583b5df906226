//! What `--help` of each command ends with: calls of it as one makes them.

pub(super) const RUN: &str = "\
Examples:
  edge run                                     # by edge.toml in this folder
  edge run --config edge.toml
  edge run --to :3000                          # without a file
  edge run --to :3000 --to :3001 --listen :80
  edge run --to :3000 --domain shop.example";

pub(super) const CHECK: &str = "\
Examples:
  edge check --config edge.toml
  edge check --effective";

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

pub(super) const INIT: &str = "\
Examples:
  edge init
  edge init ~/shop";

pub(super) const FMT: &str = "\
Examples:
  edge fmt
  edge fmt --config edge.toml --check          # for CI";

pub(super) const TRUST: &str = "\
Examples:
  edge trust                                   # Chrome and Chromium, and what root has to do for the rest
  sudo edge trust --only system --ca ~/.local/share/gatehouse/ca.pem
  edge trust --ca certs/ca.pem
  edge trust --remove";

pub(super) const COMPLETIONS: &str = "\
Examples:
  edge completions bash > /etc/bash_completion.d/edge
  edge completions zsh > ~/.zfunc/_edge
  edge completions fish > ~/.config/fish/completions/edge.fish";

pub(super) const MAN: &str = "\
Examples:
  edge man /usr/local/share/man/man1";

pub(super) const IMPORT: &str = "\
Examples:
  edge import /etc/nginx/sites-enabled/shop > edge.toml";

pub(super) const SCHEMA: &str = "\
Examples:
  edge schema > edge.schema.json               # and first in edge.toml: #:schema ./edge.schema.json (as `edge init` has it)";
