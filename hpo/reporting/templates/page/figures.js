// Figures are drawn when they come into view, in the colours of the page.
const NARROW = 600;
const PAPER_WIDTH = 680;
// Nothing is sent to a server: no button that shares a chart.
const REMOVED = ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"];
const CONFIG = { responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtonsToRemove: REMOVED };
const drawn = new Map(); // figures by their boxes

let plotlyIsThere;
function plotly() {
  plotlyIsThere ??= embedded("plotly").then((program) => {
    document.head.append(make("script", { textContent: program }));
    return window.Plotly;
  });
  return plotlyIsThere;
}

function themed(figure, box) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const layout = structuredClone(figure.layout);
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--text"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--text") }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--link") },
  });
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    const lines = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line") };
    layout[name] = { automargin: true, ...lines, ...layout[name] };
  }
  if (box.clientWidth < NARROW && layout.margin) {
    layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 48), r: 10 };
  }
  const data = figure.data.map((trace) =>
    trace.type === "heatmap" ? { ...trace, textfont: { color: colour("--text") } } : trace);
  return [data, layout];
}

async function drawFigure(box, figure) {
  await drawWith(await plotly(), box, figure);
}

async function drawWith(library, box, figure) {
  const isNew = !drawn.has(box);
  drawn.set(box, figure);
  const displayModeBar = box.clientWidth >= NARROW && "hover";
  await library.react(box, ...themed(figure, box), { ...CONFIG, displayModeBar });
  if (isNew) box.on("plotly_click", openTrialOf);
}

function openTrialOf(event) {
  const number = event.points[0]?.customdata;
  if (typeof number === "number") location.hash = `trial-${number}`;
}

async function drawEmbedded(box) {
  if (drawn.has(box)) return;
  try {
    await drawFigure(box, await embeddedJson(box.dataset.figure));
  } catch (error) {
    box.replaceChildren(make("p", { textContent: `This browser cannot draw the figure (${error}).` }));
  }
}

function drawAgain() {
  for (const [box, figure] of drawn) if (box.isConnected) drawFigure(box, figure);
}

function watchFigures() {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      watcher.unobserve(entry.target);
      drawEmbedded(entry.target);
    }
  }, { rootMargin: "300px" });
  document.querySelectorAll(".plot[data-figure]").forEach((box) => watcher.observe(box));
}

// Printing does not wait, so what is not drawn yet is drawn at once; packed data cannot be.
function drawAll() {
  for (const box of document.querySelectorAll(".plot[data-figure]")) {
    const data = document.getElementById(box.dataset.figure);
    if (!drawn.has(box) && data.type === "application/json") drawWith(window.Plotly, box, JSON.parse(data.textContent));
  }
}

// Paper is light, has its own width, and shows all figures.
let themeOfScreen;
function fitPaper(isPaper) {
  if (!window.Plotly) return;
  const page = document.documentElement;
  if (isPaper) {
    themeOfScreen = page.dataset.theme;
    page.dataset.theme = "light";
    drawAll();
  } else if (themeOfScreen) page.dataset.theme = themeOfScreen;
  else delete page.dataset.theme;
  for (const [box, figure] of drawn) {
    if (!box.isConnected) continue;
    const [data, layout] = themed(figure, box);
    const width = isPaper ? { width: Math.min(box.clientWidth, PAPER_WIDTH) } : {};
    window.Plotly.react(box, data, { ...layout, ...width }, CONFIG);
    if (!isPaper) window.Plotly.Plots.resize(box);
  }
}
