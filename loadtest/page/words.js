// Every word of the page, in English and French, and how numbers and times are written in each.
//
// Elements name their words in attributes (data-word, data-word-label, data-word-placeholder); `apply` fills them in.
// What customers and agents write is never here.

const WORDS = {
  en: {
    skip: "Skip to the chat",
    tagline: "A conversation, live through the real gateway",
    language: "Language", views: "Views",
    tab_customer: "Customer", tab_human: "Inbox", tab_relais: "Relais",
    gateway_up: "Gateway ready", gateway_down: "Gateway down", gateway_unknown: "No gateway seen", lost: "Connecting again…",
    new_chat: "New chat", chat_log: "Conversation as the customer sees it",
    you_are: (name) => `You are ${name}`,
    nobody: "Website chat",
    empty_chat: "Say hello. The agent knows the shop’s delivery, returns, payment and products.",
    writing: "The agent is writing…",
    suggestions: "Suggestions",
    chips: [
      ["Delivery time", "How long does delivery take?"], ["Returns", "How do I return shoes that do not fit?"],
      ["A human, please", "I want to talk to a human"],
    ],
    chat_label: "Your message", chat_placeholder: "Write a message…", send: "Send",
    desk_title: "Inbox", desk_sub: "What the shop’s people see in Chatwoot",
    conversations: "Conversations", actions: "What a human can do", take: "Take over", give: "Return to agent",
    resolve: "Resolve", desk_log: "Conversation with private notes", mode: "What to write",
    mode_reply: "Reply", mode_note: "Private note", desk_label: "Answer to the customer",
    desk_placeholder: "Write as Hugo, a human…", no_conversation: "No conversation yet",
    pending: "With the agent", open: "With humans", resolved: "Resolved", snoozed: "Snoozed",
    assigned: (name) => `assigned to ${name}`, team: (name) => `team ${name}`, priority: (word) => `priority ${word}`,
    customer: "Customer", agent: "AI agent", human: "Human", note: "Private note", system: "Automatic",
    failed: "not delivered", chosen: (title) => `Chosen: ${title}`,
    announce_status: (word) => `Conversation: ${word}`, announce_note: "A private note was added",
    work_title: "Inside Relais", work_for: (id) => `The customer’s latest message in conversation ${id}`,
    work_none: "Waiting for a customer’s message",
    crash: "Crash the gateway", crash_why: "Kills the gateway at once and starts it again two seconds later",
    steps: "What became of the latest message",
    step_delivery: "Delivery", step_ack: "Acknowledged", step_turn: "Turn", step_outcome: "Outcome",
    signed: "signed, HMAC-SHA256", unsigned: "not signed", none: "nothing yet",
    ack_wait: "waiting for the answer", ack_done: (status, ms) => `${status} in ${ms}`, ack_disk: "on disk before the answer",
    ack_failed: "No answer", ack_again: (count) => `try ${count}, Chatwoot tries again`, ack_lost: "Given up",
    turn_wait: "not begun", turn_gather: "Listening", turn_gather_why: "until the customer has finished",
    turn_writing: "Writing", turn_put_off: "Put off", turn_tries: (count) => `tried ${count} times`,
    turn_down: "Interrupted", turn_down_why: "safe on disk, goes on after the restart",
    turn_done: "Finished", turn_by: (agent) => `by agent “${agent}”`, turn_in: (time) => `planned in ${time}`,
    out_open: "Open", replied: "Answered", handed_off: "A human takes over", superseded: "Answered with a newer one",
    not_ours: "A human has it", signal: "Nothing to answer", damaged: "Damaged, humans were told",
    not_ours_why: "the agent stays silent", after: (time) => `${time} after the question`,
    reasons: {
      asked_for: "the customer asked for one", unsure: "the agent was not sure", agent_decided: "the agent decided so",
      agent_failed: "the agent failed", quota: "the plan is used up", unreadable: "it cannot be read",
      looping: "two automations in a loop", undelivered: "the reply was not delivered",
      delivery_unknown: "the reply’s fate is unknown", unanswered: "it waited too long", idle: "nothing happened for long",
    },
    tokens_left: "Tokens left", calls_left: "API calls left this month", conversations_left: "Conversations left",
    of: (limit) => `of ${limit}`, unlimited: "unlimited", agent_tokens: "Agent’s model tokens",
    agent_tokens_why: (input, output) => `${input} in, ${output} out this month`, agent_tokens_none: "none: it answers from documents",
    wire: "Webhooks of this conversation", wire_event: "Event", wire_signed: "Signed", wire_tries: "Tries",
    wire_answer: "Answer", wire_took: "Took", yes: "yes", no: "no",
    trouble: "That did not work. Is the demo still running?",
  },
  fr: {
    skip: "Aller à la discussion",
    tagline: "Une conversation, en direct à travers la vraie passerelle",
    language: "Langue", views: "Vues",
    tab_customer: "Client", tab_human: "Équipe", tab_relais: "Relais",
    gateway_up: "Passerelle prête", gateway_down: "Passerelle arrêtée", gateway_unknown: "Aucune passerelle", lost: "Reconnexion…",
    new_chat: "Nouveau chat", chat_log: "La conversation vue par le client",
    you_are: (name) => `Vous êtes ${name}`,
    nobody: "Chat du site",
    empty_chat: "Dites bonjour. L’agent connaît la livraison, les retours, le paiement et les produits de la boutique.",
    writing: "L’agent écrit…",
    suggestions: "Suggestions",
    chips: [
      ["Délais", "Quels sont les délais de livraison ?"], ["Retours", "Comment retourner un article ?"],
      ["Parler à un humain", "Je veux parler à un humain"],
    ],
    chat_label: "Votre message", chat_placeholder: "Écrivez un message…", send: "Envoyer",
    desk_title: "Boîte de réception", desk_sub: "Ce que l’équipe de la boutique voit dans Chatwoot",
    conversations: "Conversations", actions: "Ce qu’un humain peut faire", take: "Prendre la main",
    give: "Rendre à l’agent", resolve: "Résoudre", desk_log: "La conversation avec les notes privées",
    mode: "Que voulez-vous écrire ?", mode_reply: "Réponse", mode_note: "Note privée", desk_label: "Réponse au client",
    desk_placeholder: "Écrivez comme Hugo, un humain…", no_conversation: "Pas encore de conversation",
    pending: "Avec l’agent", open: "Avec un humain", resolved: "Résolue", snoozed: "En veille",
    assigned: (name) => `confiée à ${name}`, team: (name) => `équipe ${name}`, priority: (word) => `priorité ${word}`,
    customer: "Client", agent: "Agent IA", human: "Humain", note: "Note privée", system: "Automatique",
    failed: "non remis", chosen: (title) => `Choix : ${title}`,
    announce_status: (word) => `Conversation : ${word}`, announce_note: "Une note privée a été ajoutée",
    work_title: "Dans Relais", work_for: (id) => `Le dernier message du client, conversation ${id}`,
    work_none: "En attente d’un message du client",
    crash: "Simuler une panne", crash_why: "Tue la passerelle d’un coup et la relance deux secondes plus tard",
    steps: "Ce qu’est devenu le dernier message",
    step_delivery: "Livraison", step_ack: "Accusé", step_turn: "Tour", step_outcome: "Issue",
    signed: "signée, HMAC-SHA256", unsigned: "non signée", none: "rien encore",
    ack_wait: "en attente de la réponse", ack_done: (status, ms) => `${status} en ${ms}`, ack_disk: "sur disque avant la réponse",
    ack_failed: "Pas de réponse", ack_again: (count) => `essai ${count}, Chatwoot réessaie`, ack_lost: "Abandonnée",
    turn_wait: "pas commencé", turn_gather: "À l’écoute", turn_gather_why: "jusqu’à ce que le client ait fini",
    turn_writing: "Rédaction", turn_put_off: "Reporté", turn_tries: (count) => `${count} essais`,
    turn_down: "Interrompu", turn_down_why: "sur disque, reprend au redémarrage",
    turn_done: "Terminé", turn_by: (agent) => `par l’agent « ${agent} »`, turn_in: (time) => `décidé en ${time}`,
    out_open: "Ouverte", replied: "Réponse envoyée", handed_off: "Un humain prend le relais",
    superseded: "Répondu avec un message plus récent", not_ours: "Un humain s’en occupe", signal: "Rien à répondre",
    damaged: "Abîmé, les humains sont prévenus", not_ours_why: "l’agent se tait", after: (time) => `${time} après la question`,
    reasons: {
      asked_for: "le client l’a demandé", unsure: "l’agent n’était pas sûr", agent_decided: "l’agent l’a décidé",
      agent_failed: "l’agent a échoué", quota: "le forfait est épuisé", unreadable: "message illisible",
      looping: "deux automates en boucle", undelivered: "la réponse n’a pas été remise",
      delivery_unknown: "le sort de la réponse est inconnu", unanswered: "attente trop longue", idle: "plus rien ne se passe",
    },
    tokens_left: "Jetons restants", calls_left: "Appels d’API restants ce mois", conversations_left: "Conversations restantes",
    of: (limit) => `sur ${limit}`, unlimited: "illimité", agent_tokens: "Jetons de modèle de l’agent",
    agent_tokens_why: (input, output) => `${input} lus, ${output} écrits ce mois`, agent_tokens_none: "aucun : il répond à partir de documents",
    wire: "Webhooks de cette conversation", wire_event: "Événement", wire_signed: "Signé", wire_tries: "Essais",
    wire_answer: "Réponse", wire_took: "Durée", yes: "oui", no: "non",
    trouble: "Cela n’a pas marché. La démo tourne-t-elle encore ?",
  },
};

const KEPT = "relais.language";

/** A browser may refuse to keep things; then the choice lasts as long as the page. */
function kept() {
  try { return localStorage.getItem(KEPT); } catch { return null; }
}

function preferred() {
  const wishes = [kept(), ...(navigator.languages ?? [navigator.language])];
  const known = wishes.map((wish) => String(wish ?? "").slice(0, 2).toLowerCase()).find((wish) => wish in WORDS);
  return known ?? "en";
}

export let language = preferred();

/** The word of this name; a word with something in it is a function. */
export function word(name, ...inside) {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...inside) : found ?? name;
}

export function choose(wish) {
  language = wish in WORDS ? wish : "en";
  try { localStorage.setItem(KEPT, language); } catch { /* lasts as long as the page */ }
  apply();
}

/** Fills in all words that stand in the document itself. */
export function apply() {
  document.documentElement.lang = language;
  document.title = `Relais – ${word("tagline")}`;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word);
  for (const one of document.querySelectorAll("[data-word-label]")) one.setAttribute("aria-label", word(one.dataset.wordLabel));
  for (const one of document.querySelectorAll("[data-word-placeholder]")) one.placeholder = word(one.dataset.wordPlaceholder);
  for (const one of document.querySelectorAll("[data-language]")) one.setAttribute("aria-pressed", String(one.dataset.language === language));
}

export const number = (value) => new Intl.NumberFormat(language).format(value);

/** A length of time, given in ms. */
export function span(ms) {
  const digits = { maximumFractionDigits: 1 };
  if (ms < 1000) return `${new Intl.NumberFormat(language, digits).format(ms)} ms`;
  if (ms < 60_000) return `${new Intl.NumberFormat(language, digits).format(ms / 1000)} s`;
  return `${number(Math.floor(ms / 60_000))} min ${Math.floor((ms % 60_000) / 1000)} s`;
}

export const clock = (at_ms) => new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" }).format(at_ms);
