"""The frozen declarations of a domain. No logic, no import of anything heavy."""
