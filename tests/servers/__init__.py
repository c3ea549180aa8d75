"""Real servers, and faults between them and us, for the tests of whatever talks to them."""
