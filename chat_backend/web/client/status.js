/** How the service is, for operators: what `GET /health`, `GET /stats` and `GET /quota` say, looked at every few seconds. */

import { h, icon, iconButton } from "./dom.js";
import { duration, number, t, time } from "./i18n.js";

const LOOK_SECONDS = 5;

export class Status {
  #timer = null;

  constructor(api, { flowerUrl, menu }) {
    this.api = api;
    this.overall = h("span", { class: "lamp-words", role: "status" });
    this.checked = h("p", { class: "hint" });
    this.parts = h("div", { class: "cards" });
    this.numbers = h("div", { class: "cards" });
    const links = [
      flowerUrl && h("a", { href: flowerUrl, target: "_blank", rel: "noopener" }, t("openFlower"), icon("window")),
      h("a", { href: "/docs/", target: "_blank", rel: "noopener" }, t("openDocs"), icon("window")),
    ];
    this.element = h(
      "div",
      { class: "status" },
      h("header", { class: "bar" }, iconButton("menu", t("openChats"), menu, { class: "icon-button menu" }), h("div", { class: "names" }, h("h1", {}, t("statusOf"))), this.overall),
      h("div", { class: "status-body", tabindex: "0" }, this.parts, h("h2", {}, t("myNumbers")), this.numbers, h("p", { class: "links" }, ...links), this.checked),
    );
    document.title = `${t("status")} – ${t("appName")}`;
    this.#look();
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
    const health = await this.api.get("/health").catch((error) => error.body);
    if (!health?.checks) return this.#showUnreachable();
    this.overall.replaceChildren(...lamp(health.status));
    this.parts.replaceChildren(...cardsOf(health));
    this.checked.textContent = t("checkedAt", { time: time(health.timestamp) });
  }

  #showUnreachable() {
    this.overall.replaceChildren(...lamp("unhealthy"));
    this.checked.textContent = t("unreachable");
  }

  async #showNumbers() {
    const [stats, quota] = await Promise.all(["/stats", "/quota"].map((path) => this.api.get(path).catch(() => null)));
    if (!stats) return;
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
    jobs && card(t("queue"), null, jobs.status, Object.entries(counts).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value ?? "–"}`)),
    card(t("connections"), number(connections)),
    ...Object.entries(providers).map(([name, { status, breaker }]) => card(name, null, status, [t("circuit", { state: breaker })])),
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
