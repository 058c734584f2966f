//! The words that a delivery is found by, cut in the same way in every index and in every question.

use std::collections::BTreeSet;

use domain::DeliveryStatus;
use uuid::Uuid;

/// Most characters of a word; of a longer one only those count, in documents and in questions.
const LONGEST: usize = 64;

/// Most words of a document, and of a question.
const MOST: usize = 500;

/// What people may search a delivery for: no content, no address.
pub(crate) fn of(delivery: &DeliveryStatus) -> BTreeSet<String> {
    let d = delivery;
    let named = [d.user.as_ref().map(|u| u.as_str()), d.template.as_deref(), d.category.as_ref().map(|c| c.as_str())];
    let answers = d.history.0.iter().filter_map(|step| step.attempt.as_ref()).map(|a| a.answer.as_str());
    let answers = answers.filter(|answer| !only_says_taken(answer));
    // of all words the rarest, and of no use in parts: each is one
    let ids = [d.id.0, d.notification.0].map(|id| id.simple().to_string());
    // the newest answers count most, should there be too many
    let texts = named.into_iter().flatten().chain(ids.iter().map(String::as_str)).chain(answers.rev());
    cut(texts.chain(d.metadata.values().map(String::as_str)))
}

/// Whether an answer is a status of success and no word more, as most are: it tells no delivery from another, and with it the
/// words of each would be written once more when it ends.
fn only_says_taken(answer: &str) -> bool {
    answer.strip_prefix("HTTP 2").is_some_and(|rest| rest.len() == 2)
}

/// A word of a question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    /// To be found as it is.
    Word(String),
    /// To be found as a delivery or a notification has its own; or in parts, as metadata have it, and as older versions wrote it.
    Id { whole: String, parts: BTreeSet<String> },
}

/// The words of a question.
pub(crate) fn asked(q: &str) -> BTreeSet<Asked> {
    let (mut ids, mut rest) = (BTreeSet::new(), Vec::new());
    for text in q.split(|c: char| !c.is_alphanumeric() && c != '-') {
        match Uuid::try_parse(text) {
            // not one of its other forms, which are one word anyhow
            Ok(id) if text.contains('-') => {
                ids.insert(Asked::Id { whole: id.simple().to_string(), parts: cut([text].into_iter()) });
            }
            _ => rest.push(text),
        }
    }
    ids.extend(cut(rest.into_iter()).into_iter().map(Asked::Word));
    ids.into_iter().take(MOST).collect()
}

/// Runs of letters and digits, in lower case.
fn cut<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for word in texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric())).filter(|word| !word.is_empty()) {
        words.insert(if word.is_ascii() {
            word[..word.len().min(LONGEST)].to_ascii_lowercase()
        } else {
            word.chars().flat_map(char::to_lowercase).take(LONGEST).collect()
        });
        if words.len() == MOST {
            break;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_whole_words() {
        let words = |text: &str| cut([text].into_iter()).into_iter().collect::<Vec<_>>();
        assert_eq!(words("Order #7-x: ГОТОВО, größe_2!"), ["2", "7", "größe", "order", "x", "готово"]);
        assert_eq!(words(" …!\n\0 "), Vec::<String>::new());
        assert_eq!(words(&"Ab".repeat(100)), ["ab".repeat(32)], "a long word is cut, in questions too");
        let many: String = (0..600).map(|i| format!("w{i} ")).collect();
        assert_eq!(words(&many).len(), MOST);
    }

    #[test]
    fn an_answer_is_found_unless_it_only_says_taken() {
        for (answer, found) in
            [("HTTP 200", false), ("HTTP 200: queued as 17", true), ("HTTP 410", true), ("250 Ok", true)]
        {
            assert_eq!(!only_says_taken(answer), found, "{answer}");
        }
    }

    #[test]
    fn an_id_is_one_word_of_a_question() {
        let word = |word: &str| Asked::Word(word.into());
        let parts = ["0197", "7000", "8000", "00000000000a", "aaaaaaaa"].map(String::from).into();
        let id = Asked::Id { whole: "aaaaaaaa01977000800000000000000a".into(), parts };
        let q = "id:AAAAAAAA-0197-7000-8000-00000000000A, order-4711";
        assert_eq!(asked(q), [word("id"), word("order"), word("4711"), id].into());
        assert_eq!(asked("aaaaaaaa-0197"), [word("aaaaaaaa"), word("0197")].into());
    }
}
