// The front page, which came with all that it shows.
export { wakeShelf as show } from "/assets/shelf.js";
