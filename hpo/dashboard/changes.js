// Keeps the trials and figures of each study, and asks only for what has changed since. The page
// below goes on asking for a study's trials as it always does, and gets them from here.
(() => {
  const ask = window.fetch.bind(window);
  const kept = new Map(); // by study: the version, the trials by number, the figures
  const latest = new Map(); // by study: the latest request, which the next one waits for

  const changes = async (study, since, options) =>
    ask(`/api/studies/${study}?since=${encodeURIComponent(since)}`, options);

  window.fetch = async (resource, options) => {
    const url = new URL(resource instanceof Request ? resource.url : resource, location.href);
    const study = /^\/api\/studies\/(\d+)$/.exec(url.pathname)?.[1];
    const method = options?.method ?? "GET";
    if (study === undefined || method !== "GET" || url.origin !== location.origin) {
      return ask(resource, options);
    }
    // A page asks again while it waits; without an order each request would get the whole study.
    const answer = (latest.get(study) ?? Promise.resolve()).then(() => told(study, url, options));
    latest.set(study, answer.catch(() => undefined));
    return answer;
  };

  const told = async (study, url, options) => {
    const known = kept.get(study);
    const response = await changes(study, known?.version ?? "", options);
    if (!response.ok) {
      kept.delete(study);
      return response;
    }
    const answer = await response.json();
    const trials = answer.is_whole ? [] : known.trials;
    for (const trial of answer.trials) {
      for (const param of trial.params) param.distribution = answer.distributions[param.distribution];
      trials[trial.number] = trial;
    }
    const plotly_graph_objects = answer.plotly_graph_objects ?? known?.figures ?? [];
    kept.set(study, { version: answer.version, trials, figures: plotly_graph_objects });
    const after = Number(url.searchParams.get("after") ?? 0);
    const whole = {
      ...answer,
      plotly_graph_objects,
      trials: trials.slice(after),
      best_trials: answer.best_trials.map((number) => trials[number]),
    };
    return { ok: true, status: 200, json: async () => whole, text: async () => JSON.stringify(whole) };
  };
})();

// The style of the page, which has rules of its own where nothing can be changed.
document.head.append(Object.assign(document.createElement("style"), { textContent: hpoPage.style }));
document.documentElement.classList.toggle("read-only", hpoPage.isReadOnly);

// Of many trials, those whose curves are drawn: the live ones, the best and worst, and some between.
function fewCurves(trials) {
  if (trials.length <= 300) return trials;
  const lives = (trial) => ["Running", "Paused"].includes(trial.state);
  const ended = trials.filter((trial) => !lives(trial) && trial.values);
  ended.sort((a, b) => a.values[0] - b.values[0]);
  const between = ended.slice(60, -60);
  const step = Math.max(1, Math.ceil(between.length / 80));
  return [
    ...trials.filter(lives).slice(-100),
    ...ended.slice(0, 60),
    ...between.filter((_, i) => i % step === 0),
    ...ended.slice(-60),
  ].sort((a, b) => a.number - b.number);
}
