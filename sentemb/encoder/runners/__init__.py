"""Runners: the forms in which a backbone turns token ids into pooled vectors. ``choose`` picks one at load.

    plain       padded rows through the Hugging Face backbone; works for every architecture and device
    lean        packed rows, joined and reordered weights, no masks: BERT's family and ModernBERT on a CPU
    int8        the lean form with maps of bytes, prepared by ``sentemb quantize``
    trainable   BERT's family's training forward on a CPU
"""
