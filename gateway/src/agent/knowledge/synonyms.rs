//! Words that a customer and a help page use for one thing: the few of any shop or service, as their stems.
//!
//! Not a thesaurus: an operator's own matter has its own words, and a wrong synonym is a wrong answer. Each stands for
//! the others only when a section is judged; nothing is rewritten.

/// Stems as `tokens` makes them, of both languages; no stem stands in two groups.
const GROUPS: &[&[&str]] = &[
    &["deliveri", "deliv", "ship", "shipment", "shipping"],
    &["parcel", "packag", "order", "purchas"],
    &["refund", "reimburs", "repay"],
    &["price", "cost", "fee", "charg"],
    &["discount", "voucher", "coupon", "promo", "reduct", "remis"],
    &["option", "method", "mean"],
    &["broken", "broke", "damag", "defect", "faulti"],
    &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "weekend"],
    &["abroad", "intern", "oversea", "foreign"],
    &["phone", "telephon"],
    &["login", "log", "sign"],
    &["delet", "remov", "eras"],
    &["livraison", "livr", "livrez", "expedi"],
    &["colis", "paquet", "command"],
    &["prix", "cout", "tarif"],
    &["lund", "mard", "mercred", "jeud", "vendred", "samed", "dimanch"],
    &["retourn", "renvoi", "renvoy"],
    &["del", "duré"],
    &["pay", "payment", "paid"],
    &["ouvr", "ouvert", "ouvertur", "horair"],
    &["supprim", "effac"],
];

/// The other words for this one.
pub(super) fn of(word: &str) -> impl Iterator<Item = &'static str> + use<> {
    let group = GROUPS.iter().find(|group| group.contains(&word)).copied().unwrap_or_default();
    let word = word.to_owned();
    group.iter().copied().filter(move |other| *other != word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_word_is_in_two_groups() {
        let words: Vec<_> = GROUPS.iter().copied().flatten().collect();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        assert_eq!(of("parcel").collect::<Vec<_>>(), ["packag", "order", "purchas"]);
        assert_eq!(of("unicorn").count(), 0);
    }
}
