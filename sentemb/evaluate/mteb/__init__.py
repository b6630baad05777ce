"""mteb's own tasks, run by mteb with our models; the only room that imports mteb."""
