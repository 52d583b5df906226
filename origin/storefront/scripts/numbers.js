// Figures as people write them, in the language of the page.

/** An amount of integer cents: `price(1250, "EUR")` is "€12.50". */
export function price(cents, currency) {
  return new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency }).format(cents / 100);
}

/** "1 product", "1,250 products". */
export function productCount(count) {
  return count === 1 ? "1 product" : `${count.toLocaleString(document.documentElement.lang)} products`;
}

/** "1 piece", "12 pieces". */
export function pieceCount(count) {
  return count === 1 ? "1 piece" : `${count.toLocaleString(document.documentElement.lang)} pieces`;
}

/** A moment as the shop writes it (RFC 3339), in the customer's own time: "23 Nov 2025, 12:01". */
export function moment(text) {
  return new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
}
