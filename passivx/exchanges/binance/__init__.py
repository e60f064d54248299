"""Binance USDⓈ-M perpetuals as the bot sees them; the way in is `client.Binance`."""
