//! Models as short files over a Backend of some fifteen operations.
