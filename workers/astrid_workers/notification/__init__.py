"""The last stage: one alert to one channel, one message each."""
