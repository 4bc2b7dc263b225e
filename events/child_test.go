package events_test

const childEnv = "EVENTS_TEST_CHILD"

func childMain() int { return 0 }
