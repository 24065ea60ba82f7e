// The section of one trial, from the data that the table of trials uses.
const OWN_COLOUR = "#3b82d6";
const BEST_COLOUR = "#25935a";
const DEFAULT_COLOUR = "#888";

class TrialSection {
  constructor(box, data) {
    Object.assign(this, { box, data });
    this.rows = new Map(data.table.rows.map((row) => [row[0], row]));
  }

  // Shows a trial; false: there is none of this number.
  show(number) {
    const row = this.rows.get(number);
    if (!row) return false;
    const values = Object.fromEntries(this.data.table.columns.map((name, i) => [name, row[i]]));
    const title = make("h3", { textContent: `Trial ${number}${this.whatItIs(number)}` });
    const status = make("p", { textContent: `${values["what became of it"]}.` });
    const plot = make("div", { className: "plot", role: "img", style: "height: 320px", "aria-label": this.curveText(number) });
    const left = make("div", {}, this.paramsTable(values), this.factsTable(values));
    const right = make("div", {}, ...(this.data.curves[number] ? [plot] : []), ...this.findings(number), ...this.error(number));
    this.box.replaceChildren(title, status, make("div", { className: "columns" }, left, right));
    this.box.hidden = false;
    if (plot.isConnected) drawFigure(plot, this.curves(number));
    return true;
  }

  whatItIs(number) {
    const names = [];
    if (number === this.data.best) names.push("the winner or the best so far");
    if (number === this.data.default) names.push("the default configuration");
    return names.length ? `, ${names.join(" and ")}` : "";
  }

  curveText(number) {
    const known = (this.data.curves[number] ?? []).filter((value) => value !== null);
    return `${this.data.metric} of trial ${number} by epoch: ${known.length} epochs, the last ${shown(known.at(-1))}.`;
  }

  paramsTable(values) {
    const standard = this.rows.get(this.data.default);
    const head = ["parameter", "value", ...(standard ? ["default"] : [])];
    const rows = this.data.params.map((path) => {
      const column = this.data.table.columns.indexOf(path);
      return [path, shown(values[path]), ...(standard ? [shown(standard[column])] : [])];
    });
    return this.table(head, rows);
  }

  factsTable(values) {
    const toldElsewhere = ["number", "what became of it", "diagnosis"];
    const isFact = (name) => !toldElsewhere.includes(name) && !this.data.params.includes(name);
    const known = Object.entries(values).filter(([name, value]) => isFact(name) && value !== null);
    return this.table(["fact", "value"], known.map(([name, value]) => [name, shown(value)]));
  }

  table(head, rows) {
    const cells = (kind, texts) => texts.map((text) => make(kind, { textContent: text }));
    const body = rows.map((row) => make("tr", {}, ...cells("td", row)));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", head))), make("tbody", {}, ...body));
    return make("div", { className: "scroll" }, table);
  }

  findings(number) {
    const found = this.data.found[number] ?? [];
    const items = found.map(([tag, evidence, remedy]) =>
      make("li", {}, make("b", { textContent: this.data.texts[tag] }), `: ${evidence}. Try: ${this.data.texts[remedy]}.`));
    return items.length ? [make("h4", { textContent: "Diagnosis" }), make("ul", {}, ...items)] : [];
  }

  error(number) {
    const text = this.data.errors[number];
    return text ? [make("h4", { textContent: "What broke it" }), make("pre", { textContent: text, tabIndex: 0 })] : [];
  }

  curves(number) {
    const shownOnes = new Map([[this.data.default, ["the default", DEFAULT_COLOUR, "dash"]],
      [this.data.best, [`trial ${this.data.best}, the best`, BEST_COLOUR, "solid"]],
      [number, [`trial ${number}`, OWN_COLOUR, "solid"]]]);
    const data = [...shownOnes].filter(([one]) => this.data.curves[one]).map(([one, [name, color, dash]]) => ({
      type: "scatter", name, mode: this.data.curves[one].length > 1 ? "lines" : "markers",
      x: this.data.curves[one].map((_, i) => i + 1), y: this.data.curves[one],
      line: { color, dash, width: one === number ? 3 : 1.5 }, marker: { color },
      customdata: this.data.curves[one].map(() => one),
    }));
    const lines = this.data.rungs.map((epoch) => ({ type: "line", x0: epoch, x1: epoch, yref: "paper", y0: 0, y1: 1, line: { dash: "dot", width: 1, color: DEFAULT_COLOUR } }));
    const layout = { height: 320, margin: { l: 60, r: 10, t: 40, b: 45 }, shapes: lines,
      xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: this.data.metric } }, showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" } };
    return { data, layout };
  }
}
