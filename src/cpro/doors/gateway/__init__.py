"""The gateway: stands in front of an unchanged Centrifugo, looks like it to every SDK, and sees every command."""
