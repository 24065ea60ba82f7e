// Tables from data: sorted by a click on a column's name, searched, a page at a time.
const ROWS_A_PAGE = 50;
const LONG_TEXT = 60; // letters

class DataTable {
  constructor(box, { columns, rows }, { label, linkOf, marked }) {
    Object.assign(this, { box, columns, rows, label, linkOf, marked });
    this.isNumber = columns.map((_, i) => rows.some((row) => typeof row[i] === "number") && rows.every((row) => row[i] === null || typeof row[i] === "number"));
    this.texts = rows.map((row) => row.map(shown).join("\n").toLowerCase());
    this.order = rows.map((_, i) => i);
    this.sortedBy = null;
    this.isFalling = false;
    this.page = 0;
    this.build();
    this.fill();
  }

  build() {
    this.search = make("input", { type: "search", placeholder: "Search", "aria-label": `Search ${this.label}` });
    this.search.addEventListener("input", () => { this.page = 0; this.fill(); });
    this.before = this.button("Previous", () => { this.page -= 1; this.fill(); });
    this.after = this.button("Next", () => { this.page += 1; this.fill(); });
    this.count = make("span", { role: "status" });
    this.heads = this.columns.map((name, i) => {
      const head = make("th", { scope: "col", className: this.isNumber[i] ? "number" : "" });
      head.append(this.button(name, () => this.sortBy(i)));
      return head;
    });
    this.body = make("tbody");
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...this.heads)), this.body);
    const scroll = make("div", { className: "scroll", role: "region", "aria-label": this.label, tabIndex: 0 }, table);
    const tools = make("div", { className: "tools" }, this.search, this.count, this.before, this.after);
    this.box.replaceChildren(tools, scroll);
  }

  button(text, act) {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", act);
    return button;
  }

  sortBy(column) {
    this.isFalling = this.sortedBy === column && !this.isFalling;
    this.sortedBy = column;
    const sign = this.isFalling ? -1 : 1;
    const compare = (a, b) => this.isNumber[column] ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    this.order.sort((i, j) => {
      const [a, b] = [this.rows[i][column], this.rows[j][column]];
      if (a === null || b === null) return (a === null) - (b === null); // unknown comes last
      return sign * compare(a, b) || i - j;
    });
    this.heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : this.isFalling ? "descending" : "ascending"));
    this.heads.forEach((head, i) => { head.firstChild.textContent = this.columns[i] + (i !== column ? "" : this.isFalling ? " ▼" : " ▲"); });
    this.page = 0;
    this.fill();
  }

  fill() {
    const sought = this.search.value.trim().toLowerCase();
    const found = this.order.filter((i) => this.texts[i].includes(sought));
    const first = this.page * ROWS_A_PAGE;
    const here = found.slice(first, first + ROWS_A_PAGE);
    this.body.replaceChildren(...here.map((i) => this.row(this.rows[i])));
    const last = first + here.length;
    this.count.textContent = found.length ? `${first + 1} to ${last} of ${found.length}` : "none found";
    this.before.disabled = this.page === 0;
    this.after.disabled = last >= found.length;
    this.before.hidden = this.after.hidden = found.length <= ROWS_A_PAGE;
  }

  row(values) {
    const cells = values.map((value, i) => {
      const text = shown(value);
      if (i === 0 && this.linkOf) return make("td", { className: "number" }, make("a", { href: this.linkOf(value), textContent: text }));
      if (text.length > LONG_TEXT) return make("td", {}, make("span", { className: "long", title: text, textContent: text }));
      return make("td", { className: this.isNumber[i] ? "number" : "", textContent: text });
    });
    return make("tr", { className: this.marked !== undefined && values[0] === this.marked ? "winner" : "" }, ...cells);
  }
}
