//! Who has to know of a score, and how soon: thresholds by environment, and tiers of escalation (D7). Says it only;
//! telling people is another part's work.

use std::fmt;

use super::group::Pattern;

/// Scores above this page somebody.
pub const PAGE_ABOVE: u32 = 75;

/// Hosts that alert from the same score on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<Pattern>,
    /// A host alerts from this score on.
    pub threshold: u32,
}

/// All environments. A host belongs to the first that has it; those that none has belong to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environments {
    /// In this order.
    pub named: Vec<Environment>,
    /// Of all other hosts.
    pub others: Environment,
}

impl Environments {
    /// The environment of a host.
    #[must_use]
    pub fn of(&self, host: &str) -> &Environment {
        let has = |environment: &&Environment| environment.hosts.iter().any(|hosts| hosts.matches(host));
        self.named.iter().find(has).unwrap_or(&self.others)
    }

    /// Whether a host with this score alerts, and whom.
    #[must_use]
    pub fn judge(&self, host: &str, score: u32) -> Escalation {
        let Environment { name, threshold, .. } = self.of(host);
        let (environment, threshold) = (name.clone(), *threshold);
        let tier = Tier::of(score);
        let reason = match () {
            () if score < threshold => AlertReason::Below { score, threshold, environment },
            () if score > PAGE_ABOVE => AlertReason::Pages { score, threshold, environment },
            () => AlertReason::Alerts { score, threshold, environment },
        };
        Escalation { tier, reason }
    }
}

/// Whose work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// 50 and below.
    TicketQueue,
    /// 51 to 75.
    ShiftEngineer,
    /// 76 to 90.
    TeamLead,
    /// Above 90.
    OnCall,
}

impl Tier {
    /// The tier of a score.
    #[must_use]
    pub const fn of(score: u32) -> Self {
        match score {
            0..=50 => Self::TicketQueue,
            51..=75 => Self::ShiftEngineer,
            76..=90 => Self::TeamLead,
            _ => Self::OnCall,
        }
    }

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TicketQueue => "ticket_queue",
            Self::ShiftEngineer => "shift_engineer",
            Self::TeamLead => "team_lead",
            Self::OnCall => "on_call",
        }
    }

    /// Who that is, for people.
    #[must_use]
    pub const fn who(self) -> &'static str {
        match self {
            Self::TicketQueue => "ticket queue",
            Self::ShiftEngineer => "shift engineer",
            Self::TeamLead => "team lead",
            Self::OnCall => "on-call and incident channel",
        }
    }

    /// Minutes within which an answer is due; `None` = the next business day.
    #[must_use]
    pub const fn answer_min(self) -> Option<u32> {
        match self {
            Self::TicketQueue => None,
            Self::ShiftEngineer => Some(240),
            Self::TeamLead => Some(60),
            Self::OnCall => Some(15),
        }
    }
}

/// What follows from a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// Whose work it is.
    pub tier: Tier,
    /// Whether it alerts, and why.
    pub reason: AlertReason,
}

impl Escalation {
    /// Whether anybody is told.
    #[must_use]
    pub fn alerts(&self) -> bool {
        !matches!(self.reason, AlertReason::Below { .. })
    }

    /// Whether somebody is called out of bed.
    #[must_use]
    pub fn pages(&self) -> bool {
        matches!(self.reason, AlertReason::Pages { .. })
    }
}

/// Why a score alerts, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertReason {
    /// It is below the threshold.
    Below {
        /// The score.
        score: u32,
        /// From which it would alert.
        threshold: u32,
        /// Whose threshold that is.
        environment: String,
    },
    /// It has reached the threshold.
    Alerts {
        /// The score.
        score: u32,
        /// From which it alerts.
        threshold: u32,
        /// Whose threshold that is.
        environment: String,
    },
    /// It alerts, and is above [`PAGE_ABOVE`].
    Pages {
        /// The score.
        score: u32,
        /// From which it alerts.
        threshold: u32,
        /// Whose threshold that is.
        environment: String,
    },
}

impl AlertReason {
    /// Stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Below { .. } => "below_threshold",
            Self::Alerts { .. } => "at_threshold",
            Self::Pages { .. } => "pages",
        }
    }
}

impl fmt::Display for AlertReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below { score, threshold, environment } => {
                write!(f, "score {score} is below {threshold}, from which {environment} alerts")
            }
            Self::Alerts { score, threshold, environment } => {
                write!(f, "score {score} has reached {threshold}, from which {environment} alerts")
            }
            Self::Pages { score, environment, .. } => {
                write!(
                    f,
                    "score {score} in {environment} is above {PAGE_ABOVE}, from which on somebody is paged"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environments() -> Environments {
        let environment = |name: &str, hosts: &[&str], threshold| Environment {
            name: name.into(),
            hosts: hosts.iter().map(|hosts| hosts.parse().unwrap()).collect(),
            threshold,
        };
        Environments {
            named: vec![environment("development", &["dev-*", "*-test"], 75)],
            others: environment("production", &[], 50),
        }
    }

    #[test]
    fn each_environment_alerts_at_its_threshold_and_all_page_above_75() {
        let all = environments();
        for (host, score, code) in [
            ("prod-web-07", 49, "below_threshold"),
            ("prod-web-07", 50, "at_threshold"),
            ("prod-web-07", 75, "at_threshold"),
            ("prod-web-07", 76, "pages"),
            ("dev-1", 74, "below_threshold"),
            ("dev-1", 75, "at_threshold"),
            ("DB-TEST", 74, "below_threshold"),
            ("dev-1", 76, "pages"),
            ("dev-1", 100, "pages"),
        ] {
            let found = all.judge(host, score);
            assert_eq!(found.reason.code(), code, "{host} {score}");
            assert_eq!((found.alerts(), found.pages()), (code != "below_threshold", code == "pages"));
            assert!(found.reason.to_string().contains(&score.to_string()), "{}", found.reason);
        }
    }

    #[test]
    fn tiers_are_those_of_the_specification() {
        for (score, name, answer) in [
            (0, "ticket_queue", None),
            (50, "ticket_queue", None),
            (51, "shift_engineer", Some(240)),
            (75, "shift_engineer", Some(240)),
            (76, "team_lead", Some(60)),
            (90, "team_lead", Some(60)),
            (91, "on_call", Some(15)),
            (100, "on_call", Some(15)),
        ] {
            let tier = Tier::of(score);
            assert_eq!((tier.name(), tier.answer_min()), (name, answer), "{score}");
        }
    }
}
