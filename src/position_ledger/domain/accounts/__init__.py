"""Accounts: the money of one account in one currency and one environment, and what positions do to it."""
