//! Pages by number: which are free, and how many use each of the others.

use super::index::NONE;

/// The pages of one group of layers. A page is free, or used by sequences and the index together.
pub(super) struct Pool {
    free: Vec<u32>,
    users: Vec<u32>,
}

impl Pool {
    pub(super) fn new(pages: usize) -> Self {
        Self {
            free: (0..pages as u32).rev().collect(),
            users: vec![0; pages],
        }
    }

    pub(super) fn pages(&self) -> usize {
        self.users.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// A free page, for one user.
    pub(super) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.users[page as usize] = 1;
        Some(page)
    }

    /// One more user of a page.
    pub(super) fn share(&mut self, page: u32) {
        self.users[page as usize] += 1;
    }

    pub(super) fn users(&self, page: u32) -> u32 {
        self.users[page as usize]
    }

    /// One user less; whether the page is free now. No page is no user.
    pub(super) fn give_back(&mut self, page: u32) -> bool {
        if page == NONE {
            return false;
        }
        let users = &mut self.users[page as usize];
        *users -= 1;
        let is_free = *users == 0;
        if is_free {
            self.free.push(page);
        }
        is_free
    }
}
