//! An agent that is cut off for two minutes loses nothing, and is seen as it is now the moment it is back.
