"""What this computer is: rates, memory, allocation, number formats."""
