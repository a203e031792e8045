//! Lists, a page at a time: at most so many items, and a cursor for the next page.
//!
//! The cursor is the id of the last item. A page is therefore stable when items are added or go before it, and the next
//! one never shows an item twice. How many there are in all is not told: counting them would read them.

use schemars::JsonSchema;
use serde::Serialize;

/// Which page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Items after this id; empty: from the first one.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

/// One page.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List<T> {
    /// The items, by id.
    pub items: Vec<T>,
    /// Give this as `after` to get the next page. Absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Page {
    /// Rows to ask the database for: one more than shown, which tells whether there is a next page.
    pub fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

impl<T> List<T> {
    /// A page of these rows, of which there is one more than wanted if it is not the last page.
    pub fn of(mut items: Vec<T>, page: &Page, id: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(id);
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_next() {
        let page = Page { after: String::new(), limit: 2 };
        assert_eq!(page.rows(), 3);
        let id = |n: &i32| n.to_string();
        for (rows, items, next) in
            [(vec![1, 2, 3], vec![1, 2], Some("2")), (vec![1, 2], vec![1, 2], None), (vec![], vec![], None)]
        {
            let list = List::of(rows, &page, id);
            assert_eq!((list.items, list.next.as_deref()), (items, next));
        }
    }
}
