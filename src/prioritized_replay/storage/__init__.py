"""Where rows and frames are kept, in memory or in files. It never sees a priority."""
