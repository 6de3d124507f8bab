"""V-pretraining (arXiv 2601.22108), vision: feedback teaches the designer of views, DINO alone the learner."""
