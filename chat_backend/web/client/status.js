/** How the service is, for operators: what `GET /health`, `GET /stats` and `GET /quota` say, looked at every few seconds. */

import { h, icon, iconButton } from "./dom.js";
import { duration, number, t, time } from "./i18n.js";

const LOOK_SECONDS = 5;
// What is shown must be true now: asked once, and not waited for.
const AT_ONCE = { tries: 1, seconds: 8 };

export class Status {
  #timer = null;
  #overall = null;

  constructor(api, { flowerUrl, menu }) {
    this.api = api;
    this.overall = h("span", { class: "lamp-words", role: "status" });
    this.checked = h("p", { class: "hint" });
    this.parts = h("div", { class: "cards" });
    this.heading = h("h2", { hidden: true }, t("myNumbers"));
    this.numbers = h("div", { class: "cards" });
    const links = [
      flowerUrl && h("a", { href: flowerUrl, target: "_blank", rel: "noopener" }, t("openFlower"), icon("window")),
      h("a", { href: "/docs/", target: "_blank", rel: "noopener" }, t("openDocs"), icon("window")),
    ];
    this.element = h(
      "div",
      { class: "status" },
      h("header", { class: "bar" }, iconButton("menu", t("openChats"), menu, { class: "icon-button menu" }), h("div", { class: "names" }, h("h1", {}, t("statusOf"))), this.overall),
      h("div", { class: "status-body", tabindex: "0" }, this.parts, this.heading, this.numbers, h("p", { class: "links" }, ...links), this.checked),
    );
    this.#look();
  }

  get documentTitle() {
    return `${t("status")} – ${t("appName")}`;
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = "closed";
  }

  async #look() {
    await Promise.all([this.#showHealth(), this.#showNumbers()]);
    if (this.#timer !== "closed") this.#timer = setTimeout(() => this.#look(), LOOK_SECONDS * 1000);
  }

  async #showHealth() {
    // 503 is an answer here: it holds what is wrong.
    const health = await this.api.get("/health", {}, AT_ONCE).catch((error) => error.body);
    const isThere = Boolean(health?.checks);
    this.#showOverall(isThere ? health.status : "unhealthy");
    this.parts.replaceChildren(...(isThere ? cardsOf(health) : []));
    this.checked.textContent = isThere ? t("checkedAt", { time: time(health.timestamp) }) : t("UNREACHABLE");
  }

  /** It is heard when it changes, not whenever it is looked at. */
  #showOverall(status) {
    if (status === this.#overall) return;
    this.#overall = status;
    this.overall.replaceChildren(...lamp(status));
  }

  async #showNumbers() {
    const [stats, quota] = await Promise.all(["/stats", "/quota"].map((path) => this.api.get(path, {}, AT_ONCE).catch(() => null)));
    this.heading.hidden = !stats;
    if (!stats) return this.numbers.replaceChildren();
    const shown = {
      statSessions: number(stats.total_sessions),
      statActive: number(stats.active_sessions),
      statMessages: number(stats.total_messages),
      statToday: number(stats.messages_today),
      statTime: stats.average_response_time_ms === null ? "–" : duration(stats.average_response_time_ms),
      statProvider: stats.most_used_provider ?? "–",
      statModel: stats.most_used_model ?? "–",
    };
    const counts = Object.entries(shown).map(([name, value]) => card(t(name), value));
    this.numbers.replaceChildren(...counts, ...quotaCards(quota));
  }
}

/** Show what is left for today, where there is a limit. */
function quotaCards(quota) {
  const limited = ["requests", "tokens"].filter((name) => quota && quota[name].limit !== null);
  return limited.map((name) => {
    const { used, reserved, limit } = quota[name];
    const line = t("quotaResets", { time: time(quota.resets_at) });
    return card(t(`quota_${name}`), t("quotaUsed", { used: used + reserved, limit }), null, [line]);
  });
}

function cardsOf({ checks, active_connections: connections }) {
  const { database, redis, workers, jobs, providers } = checks;
  const { status: _, ...counts } = jobs ?? {};
  return [
    card(t("database"), null, database.status),
    card(t("redis"), null, redis.status),
    card(t("workers"), workers.count === null ? null : t("workersCount", { count: workers.count }), workers.status, [
      workers.running === null ? "" : t("repliesRunning", { count: workers.running }),
    ]),
    jobs && card(t("queue"), null, jobs.status, Object.entries(counts).map(([name, count]) => t(`jobs_${name}`, { count, name }))),
    card(t("connections"), number(connections)),
    ...Object.entries(providers).map(([name, { status, breaker }]) => card(name, null, status, status === "not_configured" ? [] : [t("circuit", { state: t(`breaker_${breaker}`) })])),
  ].filter(Boolean);
}

function card(name, value, status = null, lines = []) {
  return h(
    "section",
    { class: "card" },
    h("h3", {}, name),
    value !== null && h("p", { class: "value" }, value),
    status && h("p", { class: "lamp-words" }, ...lamp(status)),
    ...lines.filter(Boolean).map((line) => h("p", { class: "line" }, line)),
  );
}

function lamp(status) {
  return [h("span", { class: "lamp", "data-status": status, "aria-hidden": "true" }), t(status)];
}
