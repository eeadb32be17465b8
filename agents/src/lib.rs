//! How an agent is served, and the two agents.
