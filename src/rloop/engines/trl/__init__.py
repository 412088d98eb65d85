"""Engine `trl`: the same loop on TRL's GRPOTrainer and SFTTrainer, in one process or in many."""
