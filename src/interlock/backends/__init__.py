"""Where the thinking comes from: model engines behind one chat interface."""
