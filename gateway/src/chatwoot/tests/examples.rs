//! What the example deliveries read as. They belong to our notes on Chatwoot, which stand beside the repository and
//! are not part of it: where they are missing this says so and checks nothing.

use std::path::{Path, PathBuf};

use crate::chatwoot::event::{self, Parsed};

/// File, and what matters of it: event, conversation status, assignee; sender, text or what stands for it.
const EXPECTED: &[(&str, &str)] = &[
    ("account_created", "ignored: account"),
    ("automation_event.conversation_updated", "ignored: automation"),
    ("contact_created", "ignored: contact"),
    ("contact_updated", "ignored: contact"),
    ("conversation_created", "ignored: conversation_created"),
    ("conversation_opened", "conversation_opened open None Web"),
    ("conversation_resolved", "conversation_resolved resolved None Web"),
    ("conversation_status_changed.open_to_resolved", "conversation_status_changed resolved Human(12) Web"),
    ("conversation_status_changed.pending_to_open", "conversation_status_changed open None Web"),
    ("conversation_status_changed.resolved_to_pending", "conversation_status_changed pending Human(12) Web"),
    ("conversation_status_changed.snoozed", "conversation_status_changed snoozed Human(12) Web"),
    ("conversation_typing_off.contact", "ignored: typing"),
    ("conversation_typing_on.agent_bot", "ignored: typing"),
    ("conversation_typing_on.contact", "ignored: typing"),
    ("conversation_typing_on.user", "ignored: typing"),
    ("conversation_updated.assigned_to_agent_bot", "conversation_updated pending Bot(5) Web"),
    ("conversation_updated.auto_assigned_on_handoff", "conversation_updated open Human(12) Web"),
    ("conversation_updated.custom_attributes", "conversation_updated pending None Web"),
    ("conversation_updated.labels", "conversation_updated pending None Web"),
    ("conversation_updated.priority", "conversation_updated pending None Web"),
    ("conversation_updated.status_changed", "conversation_updated open None Web"),
    ("conversation_updated.team_assigned", "conversation_updated pending None Web team"),
    ("conversation_updated.waiting_since_cleared", "conversation_updated pending None Web"),
    ("inbox_created", "ignored: chatwoot_inbox"),
    ("inbox_updated", "ignored: chatwoot_inbox"),
    ("macro.executed", "ignored: macro"),
    ("message_created.incoming.api_channel", "message_created pending None Api; Customer"),
    (
        "message_created.incoming.attachment_audio",
        "message_created pending None Whatsapp; Customer no text [voice note None]",
    ),
    (
        "message_created.incoming.attachment_contact_card",
        "message_created pending None Whatsapp; Customer [contact card None]",
    ),
    (
        "message_created.incoming.attachment_image",
        "message_created pending None Whatsapp; Customer no text [image None]",
    ),
    (
        "message_created.incoming.attachment_location",
        "message_created pending None Whatsapp; Customer no text [location None]",
    ),
    ("message_created.incoming.conversation_assigned_to_bot", "message_created pending Bot(5) Web; Customer"),
    ("message_created.incoming.conversation_open_human_assigned", "message_created open Human(12) Web team; Customer"),
    ("message_created.incoming.email", "message_created pending None Email; Customer"),
    ("message_created.incoming.reply_to", "message_created pending None Whatsapp; Customer"),
    (
        "message_created.incoming.unsupported",
        "message_created pending None Whatsapp; Customer [unsupported message None]",
    ),
    ("message_created.incoming.web_widget", "message_created pending None Web; Customer"),
    ("message_created.incoming.whatsapp", "message_created pending None Whatsapp; Customer"),
    ("message_created.incoming.whatsapp_button_reply", "message_created pending None Whatsapp; Customer"),
    ("message_created.outgoing.agent_bot_own_echo", "message_created pending None Web; Bot(5) ours"),
    ("message_created.outgoing.article", "message_created pending None Web; Bot(5)"),
    ("message_created.outgoing.automation_rule", "message_created pending None Web; Automation"),
    ("message_created.outgoing.captain", "message_created pending None Web; Captain"),
    ("message_created.outgoing.cards", "message_created pending None Web; Bot(5)"),
    ("message_created.outgoing.external_echo", "message_created pending None Whatsapp; ExternalEcho"),
    ("message_created.outgoing.form", "message_created pending None Web; Bot(5)"),
    ("message_created.outgoing.human_agent", "message_created open Human(12) Web; Human(12)"),
    ("message_created.outgoing.human_agent_while_pending", "message_created pending None Web; Human(12)"),
    ("message_created.outgoing.input_select", "message_created pending None Web; Bot(5)"),
    ("message_created.outgoing.private_note", "message_created open Human(12) Web; Human(12) private"),
    ("message_created.template.greeting", "message_created pending None Web; Template"),
    ("message_created.template.input_csat_other_channel", "message_created resolved None Whatsapp; Template"),
    ("message_created.template.input_csat_web_widget", "message_created resolved None Web; Template"),
    ("message_created.template.input_email", "message_created pending None Web; Template"),
    ("message_created.template.out_of_office", "message_created pending None Web; Template"),
    (
        "message_updated.incoming.audio_transcribed",
        "message_updated pending None Whatsapp; Customer no text [voice note Some(\"I would like to talk to billing please\")]",
    ),
    ("message_updated.outgoing.deleted", "message_updated open Human(12) Web; Human(12) deleted"),
    ("message_updated.outgoing.delivered", "message_updated pending None Whatsapp; Bot(5)"),
    ("message_updated.outgoing.delivery_failed", "message_updated pending None Whatsapp; Bot(5) failed"),
    (
        "message_updated.outgoing.form_submitted",
        "message_updated pending None Web; Bot(5) [\"order_number: A-1001\", \"reason: late\"]",
    ),
    ("message_updated.outgoing.input_select_answered", "message_updated pending None Web; Bot(5) [\"Billing\"]"),
    ("message_updated.template.input_csat_answered", "message_updated resolved None Web; Template"),
    ("message_updated.template.input_email_answered", "message_updated pending None Web; Template"),
    ("webwidget_triggered.first_visit", "ignored: webwidget_triggered"),
    ("webwidget_triggered.returning_visitor", "ignored: webwidget_triggered"),
];

fn summary(parsed: &Parsed) -> String {
    let event = match parsed {
        Parsed::Event(event) => event,
        Parsed::Ignored(why) => return format!("ignored: {why}"),
    };
    let view = &event.conversation;
    assert_eq!((event.account_id, view.id), (7, 1042));
    let status = view.status.map_or("?", event::Status::as_str);
    let mut line = format!("{} {status} {:?} {:?}", event.kind.as_str(), view.assignee, view.medium);
    if view.has_team {
        line.push_str(" team");
    }
    let Some(message) = &event.message else { return line };
    line.push_str(&format!("; {:?}", message.from));
    for (holds, word) in [
        (message.turn.is_some(), " ours"),
        (message.private, " private"),
        (message.deleted, " deleted"),
        (message.external_error, " failed"),
        (message.content.is_none(), " no text"),
    ] {
        line.push_str(if holds { word } else { "" });
    }
    for attachment in &message.attachments {
        line.push_str(&format!(" [{} {:?}]", attachment.kind.as_str(), attachment.transcript));
    }
    if !message.submitted.is_empty() {
        line.push_str(&format!(" {:?}", message.submitted));
    }
    line
}

#[test]
fn every_example_reads_as_it_should() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let dir = std::env::var_os("RELAIS_SHARED").map_or(beside, PathBuf::from).join("chatwoot/events");
    let Ok(files) = std::fs::read_dir(&dir) else {
        eprintln!("SKIPPED: no example deliveries at {}: nothing was checked.", dir.display());
        return;
    };
    let mut read: Vec<(String, String)> = files
        .map(|file| {
            let path = file.unwrap().path();
            let parsed = event::parse(&std::fs::read(&path).unwrap());
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, parsed.map_or_else(|error| format!("error: {error}"), |parsed| summary(&parsed)))
        })
        .collect();
    read.sort();
    let read: Vec<(&str, &str)> = read.iter().map(|(name, line)| (name.as_str(), line.as_str())).collect();
    for (read, expected) in read.iter().zip(EXPECTED) {
        assert_eq!(read, expected);
    }
    assert_eq!(read.len(), EXPECTED.len(), "{read:#?}");
}
