"""A venue in a process: Binance USDⓈ-M or Bybit V5 over loopback, with real rules and real faults.

It shares with the bot's clients only what the product is built on (`_core.matching`, `Market`,
`Clock`). It knows the venues' messages by itself: a misunderstanding must not be mutual.
"""
