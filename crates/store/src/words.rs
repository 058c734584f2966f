//! The words that a delivery is found by, cut in the same way in every index and in every question.

use std::collections::BTreeSet;

use domain::DeliveryStatus;

/// Most characters of a word; of a longer one only those count, in documents and in questions.
const LONGEST: usize = 64;

/// Most words of a document, and of a question.
const MOST: usize = 500;

/// What people may search a delivery for: no content, no address.
pub(crate) fn of(delivery: &DeliveryStatus) -> BTreeSet<String> {
    let d = delivery;
    let named = [d.user.as_ref().map(|u| u.as_str()), d.template.as_deref(), d.category.as_ref().map(|c| c.as_str())];
    let answers = d.history.0.iter().filter_map(|step| step.attempt.as_ref()).map(|a| a.answer.as_str());
    let ids = [d.id.to_string(), d.notification.to_string()];
    // the newest answers count most, should there be too many
    let texts = named.into_iter().flatten().chain(ids.iter().map(String::as_str)).chain(answers.rev());
    cut(texts.chain(d.metadata.values().map(String::as_str)))
}

/// The words of a question.
pub(crate) fn asked(q: &str) -> BTreeSet<String> {
    cut([q].into_iter())
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
        let words = |text: &str| asked(text).into_iter().collect::<Vec<_>>();
        assert_eq!(words("Order #7-x: ГОТОВО, größe_2!"), ["2", "7", "größe", "order", "x", "готово"]);
        assert_eq!(words(" …!\n\0 "), Vec::<String>::new());
        assert_eq!(words(&"Ab".repeat(100)), ["ab".repeat(32)], "a long word is cut, in questions too");
        let many: String = (0..600).map(|i| format!("w{i} ")).collect();
        assert_eq!(words(&many).len(), MOST);
    }
}
