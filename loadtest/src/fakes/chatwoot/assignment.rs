//! Who has a conversation, and what hangs on it: assignees, teams, labels, attributes, priority.
//!
//! Writes replace. An id nobody has unassigns and is no error, as in the real thing: a caller that
//! does not read the answer loses the assignment.

use serde_json::Value;

use super::Rules;
use super::machine::StatusChange;
use super::model::{Assignee, Attributes, Author, ConversationKey, Status};
use super::payload::changed;
use super::record::Happening;
use super::state::State;

impl State {
    /// Assigns a human of the account; `None`, or an id nobody has, unassigns.
    pub(super) fn assign_human(
        &mut self,
        key: ConversationKey,
        human_id: Option<u64>,
        by: Option<Author>,
    ) -> Option<u64> {
        let human = human_id.and_then(|id| self.humans.get(&id)).filter(|human| human.account_id == key.account_id);
        let human_id = human.map(|human| human.id);
        let was_bot_owned = self.change_assignee(key, human_id.map(Assignee::Human));
        if was_bot_owned && human_id.is_some() && self.settings.rules == Rules::Later {
            self.set_status(key, StatusChange::to(Status::Open, by, "assigned to a human"));
        }
        human_id
    }

    /// Assigns a bot; an id no bot has changes nothing.
    pub(super) fn assign_bot(&mut self, key: ConversationKey, bot_id: u64, by: Option<Author>) -> Option<u64> {
        self.bots.get(&bot_id)?;
        self.change_assignee(key, Some(Assignee::Bot(bot_id)));
        if self.settings.rules == Rules::Later {
            self.set_status(key, StatusChange::to(Status::Pending, by, "assigned to a bot"));
        }
        Some(bot_id)
    }

    /// Assigns a team; an id no team has clears it. A human who is not a member is dropped.
    pub(super) fn assign_team(&mut self, key: ConversationKey, team_id: Option<u64>) -> Option<u64> {
        let team = team_id.and_then(|id| self.teams.get(&id)).filter(|team| team.account_id == key.account_id).cloned();
        let team_id = team.as_ref().map(|team| team.id);
        let conversation = self.conversations.get_mut(&key)?;
        let before = std::mem::replace(&mut conversation.team_id, team_id);
        let mut changes = Vec::new();
        if before != team_id {
            changes.push(changed("team_id", before, team_id));
        }
        if let (Some(team), Some(Assignee::Human(human_id))) = (&team, conversation.assignee)
            && !team.human_ids.contains(&human_id)
        {
            conversation.assignee = None;
            changes.push(changed("assignee_id", human_id, Value::Null));
        }
        if team_id.is_some()
            && let Some(human_id) = self.auto_assign(key)
        {
            changes.push(changed("assignee_id", Value::Null, human_id));
        }
        self.tell_assignment(key);
        self.emit_updated(key, changes);
        team_id
    }

    /// Picks an online human of the team, or of the account, if the inbox wants that and nobody has it.
    pub(super) fn auto_assign(&mut self, key: ConversationKey) -> Option<u64> {
        let conversation = self.conversations.get(&key)?;
        let inbox = self.inboxes.get(&conversation.chatwoot_inbox_id)?;
        let team = conversation.team_id.and_then(|id| self.teams.get(&id));
        if !inbox.auto_assignment || conversation.assignee.is_some() || team.is_some_and(|team| !team.allow_auto_assign)
        {
            return None;
        }
        let online: Vec<u64> = self
            .humans
            .values()
            .filter(|human| human.online && human.account_id == key.account_id)
            .filter(|human| team.is_none_or(|team| team.human_ids.contains(&human.id)))
            .map(|human| human.id)
            .collect();
        let drawn = usize::try_from(self.random_u64() % 1_000_000).ok()?.checked_rem(online.len())?;
        let human_id = online.get(drawn).copied()?;
        self.conversations.get_mut(&key)?.assignee = Some(Assignee::Human(human_id));
        self.tell_assignment(key);
        Some(human_id)
    }

    /// Replaces the labels.
    pub(super) fn set_labels(&mut self, key: ConversationKey, labels: Vec<String>) {
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        let before = std::mem::replace(&mut conversation.labels, labels.clone());
        if before == labels {
            return;
        }
        let joined = |labels: &[String]| if labels.is_empty() { Value::Null } else { labels.join(", ").into() };
        let changes = vec![
            changed("label_list", before.clone(), labels.clone()),
            changed("cached_label_list", joined(&before), joined(&labels)),
        ];
        self.tell(key, &Happening::LabelsChanged { labels });
        self.emit_updated(key, changes);
    }

    /// Replaces the custom attributes.
    pub(super) fn set_custom_attributes(&mut self, key: ConversationKey, attributes: Attributes) {
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        let before = std::mem::replace(&mut conversation.custom_attributes, attributes.clone());
        if before != attributes {
            self.emit_updated(key, vec![changed("custom_attributes", before, attributes)]);
        }
    }

    /// Sets or clears the priority.
    pub(super) fn set_priority(&mut self, key: ConversationKey, priority: Option<String>) {
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        let before = std::mem::replace(&mut conversation.priority, priority.clone());
        if before != priority {
            self.emit_updated(key, vec![changed("priority", before, priority)]);
        }
    }

    /// Changes the assignee, raises the event, and says whether a bot had it while it was pending.
    fn change_assignee(&mut self, key: ConversationKey, assignee: Option<Assignee>) -> bool {
        let Some(conversation) = self.conversations.get_mut(&key) else { return false };
        let before = std::mem::replace(&mut conversation.assignee, assignee);
        let was_bot_owned = conversation.status == Status::Pending && matches!(before, Some(Assignee::Bot(_)));
        let human = |assignee| match assignee {
            Some(Assignee::Human(id)) => Some(id),
            _ => None,
        };
        let bot = |assignee| match assignee {
            Some(Assignee::Bot(id)) => Some(id),
            _ => None,
        };
        let mut changes = Vec::new();
        if human(before) != human(assignee) {
            changes.push(changed("assignee_id", human(before), human(assignee)));
        }
        if bot(before) != bot(assignee) {
            changes.push(changed("assignee_agent_bot_id", bot(before), bot(assignee)));
        }
        if !changes.is_empty() {
            self.tell_assignment(key);
        }
        self.emit_updated(key, changes);
        was_bot_owned
    }

    fn tell_assignment(&mut self, key: ConversationKey) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let assignee_id = conversation.assignee.map(|assignee| match assignee {
            Assignee::Human(id) | Assignee::Bot(id) => id,
        });
        let team = conversation.team_id.and_then(|id| self.teams.get(&id)).map(|team| team.name.clone());
        self.tell(key, &Happening::AssignmentChanged { assignee_id, team });
    }
}
