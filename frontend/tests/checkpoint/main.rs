//! Reading checkpoints: what must load, what it must give, and what must be refused.

mod bombs;
mod damage;
mod hostile;
mod hostile_pickles;
mod hostile_tensors;
mod hostile_zips;
mod layouts;
mod root_choice;
mod support;
mod trainers;
mod views;
