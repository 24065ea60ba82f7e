// What happens when the page is there.
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function watchTheme() {
  document.getElementById("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    drawAgain();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
  addEventListener("beforeprint", () => fitPaper(true));
  addEventListener("afterprint", () => fitPaper(false));
}

async function fillClasses() {
  const box = document.querySelector("[data-table=classes]");
  if (box) new DataTable(box, await embeddedJson("data-classes"), { label: box.dataset.label });
}

async function fillTrials() {
  const box = document.querySelector("[data-table=trials]");
  if (!box) return;
  const data = await embeddedJson("data-trials");
  const linkOf = (number) => `#trial-${number}`;
  new DataTable(box, data.table, { label: box.dataset.label, linkOf, marked: data.best });
  const place = document.getElementById("trial");
  const section = new TrialSection(place, data);
  const follow = () => {
    const number = /^#trial-(\d+)$/.exec(location.hash)?.[1];
    if (number === undefined || !section.show(Number(number))) return;
    place.scrollIntoView();
    place.focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  follow();
}

// The page is painted first.
requestAnimationFrame(() => setTimeout(() => {
  watchTheme();
  watchFigures();
  fillClasses();
  fillTrials();
  (window.requestIdleCallback ?? setTimeout)(plotly); // printing needs it
}));
